//! How large it may be.

use crate::saved::Saved;
use std::fs;
use std::path::Path;

/// The most bytes of all files together.
const MAX_UNPACKED: u64 = 18_000_000;

/// The most bytes of all layers together, each compressed by `gzip -9`, as a registry would keep it.
const MAX_COMPRESSED: u64 = 8_000_000;

#[test]
fn it_is_no_larger_than_its_budget() {
    let saved = Saved::image();
    let unpacked: u64 =
        saved.entries().iter().filter_map(|entry| entry.content.as_ref()).map(|content| content.size).sum();
    let compressed: u64 = saved.layers().iter().map(|layer| saved.compressed(layer)).sum();
    assert!(
        unpacked <= MAX_UNPACKED && compressed <= MAX_COMPRESSED,
        "{unpacked} bytes unpacked of {MAX_UNPACKED}, {compressed} compressed of {MAX_COMPRESSED}"
    );
}

#[test]
fn the_documentation_names_the_budget() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/image.md")).unwrap();
    let (unpacked, compressed) = (MAX_UNPACKED / 1_000_000, MAX_COMPRESSED / 1_000_000);
    let sentence = format!("at most {unpacked} MB unpacked and {compressed} MB compressed");
    assert!(page.contains(&sentence), "docs/image.md does not say: {sentence}");
}
