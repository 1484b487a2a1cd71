//! What `compare-images` says of images that are the same, that are not, and that cannot be read: as a process, by its
//! exit code and its output.

#![allow(clippy::unwrap_used)]
// The forms of an archive are independent of each other; speed is no matter here.
#![allow(clippy::struct_excessive_bools, clippy::assigning_clones)]

mod broken;
mod different;
mod files;
mod fixture;
mod same;

use std::path::Path;
use std::process::Command;

/// Compares two archives; returns the exit code and all that was printed.
fn compare(one: &Path, other: &Path) -> (i32, String) {
    compare_with(&[], one, other)
}

fn compare_with(options: &[&str], one: &Path, other: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare-images"));
    let output = command.args(options).args([one, other]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Compares the fixture with an altered one, in both orders; returns what is said of the first order.
fn altered(alter: impl Fn(&mut fixture::Image)) -> (i32, String) {
    altered_with(&[], alter)
}

fn altered_with(options: &[&str], alter: impl Fn(&mut fixture::Image)) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one.tar"), folder.path().join("other.tar"));
    let mut image = fixture::Image::new();
    image.save(&one);
    alter(&mut image);
    image.save(&other);
    let (code, text) = compare_with(options, &one, &other);
    assert_eq!(compare_with(options, &other, &one).0, code, "the order of the two changes the verdict: {text}");
    (code, text)
}
