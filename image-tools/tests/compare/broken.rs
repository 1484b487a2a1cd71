//! What cannot be told: exit 2, and why.

use crate::compare;
use crate::fixture::{File, Image, digest, gzip, tar, zstd};
use image_tools::{Error, Limits};
use serde_json::json;
use std::fs;
use std::path::Path;

type Members = Vec<(String, Vec<u8>)>;

/// What is broken, how, and what the output must hold.
type Breakage = (&'static str, fn(&mut Members), &'static str);

fn member<'a>(members: &'a mut Members, name: &str) -> &'a mut Vec<u8> {
    &mut members.iter_mut().find(|(own, _)| own == name).unwrap().1
}

fn replace(members: &mut Members, name: &str, from: &str, to: &str) {
    let content = member(members, name);
    let text = String::from_utf8(content.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    *content = text.replacen(from, to, 1).into_bytes();
}

const BREAKAGES: &[Breakage] = &[
    ("no manifest.json", |members| members.retain(|(name, _)| name != "manifest.json"), "it has no manifest.json"),
    ("a layer missing", |members| members.retain(|(name, _)| name != "1.tar"), "the archive lacks \"1.tar\""),
    (
        "no configuration",
        |members| members.retain(|(name, _)| name != "config.json"),
        "the archive lacks \"config.json\"",
    ),
    ("a layer cut off", |members| member(members, "0.tar").truncate(700), "but the configuration says sha256:"),
    (
        "a compressed layer cut off",
        |members| {
            let layer = member(members, "0.tar");
            *layer = gzip(layer);
            layer.truncate(100);
        },
        "cannot read layer 1",
    ),
    (
        "a layer compressed by zstd cut off",
        |members| {
            let layer = member(members, "0.tar");
            *layer = zstd(layer);
            layer.truncate(layer.len() - 20);
        },
        "cannot read layer 1",
    ),
    ("a byte changed alone", |members| member(members, "0.tar")[0] = b'B', "but the configuration says sha256:"),
    (
        "another diff_id",
        |members| replace(members, "config.json", "\"diff_ids\":[\"sha256:", "\"diff_ids\":[\"sha256:0"),
        "but the configuration says sha256:0",
    ),
    (
        "a layer that the configuration does not name",
        |members| replace(members, "manifest.json", "\"0.tar\",", "\"0.tar\",\"0.tar\","),
        "the archive has 3 layers, its configuration 2",
    ),
    (
        "two images",
        |members| {
            let manifest = member(members, "manifest.json");
            let text = String::from_utf8(manifest.clone()).unwrap();
            let image = &text[1..text.len() - 1];
            *manifest = format!("[{image},{image}]").into_bytes();
        },
        "the archive holds 2 images, not one",
    ),
    ("no image", |members| *member(members, "manifest.json") = b"[]".to_vec(), "the archive holds 0 images"),
    ("a manifest that is no JSON", |members| *member(members, "manifest.json") = b"[{".to_vec(), "is not valid JSON"),
    (
        "a field twice",
        |members| replace(members, "config.json", "{", "{\"config\":{\"User\":\"0\"},"),
        "the field \\\"config\\\" stands twice",
    ),
    ("a name that leads out", |members| members.push(("../x".to_owned(), vec![1])), "leads out of it"),
    ("a name within that leads out", |members| members.push(("a/../../x".to_owned(), vec![1])), "leads out of it"),
    ("a name from the root", |members| members.push(("/etc/x".to_owned(), vec![1])), "leads out of it"),
    (
        "a member twice",
        |members| members.push(("config.json".to_owned(), b"{}".to_vec())),
        "it holds \"config.json\" twice",
    ),
    (
        "a member twice, spelled otherwise",
        |members| members.push(("./manifest.json".to_owned(), b"[]".to_vec())),
        "it holds \"manifest.json\" twice",
    ),
    (
        "a manifest that names a member outside",
        |members| replace(members, "manifest.json", "\"0.tar\"", "\"../0.tar\""),
        "leads out of the archive",
    ),
];

/// Compares the archive with a good one, either first; exit 2 is what it must be.
fn refused(what: &str, file: &Path) -> String {
    let good = file.with_extension("good");
    Image::new().save(&good);
    let (code, text) = compare(&good, file);
    assert_eq!(code, 2, "{what}: {text}");
    assert_eq!(compare(file, &good).0, 2, "{what}: {text}");
    assert!(!text.contains("the images are"), "{what}: {text}");
    text
}

#[test]
fn a_broken_archive_is_neither_the_same_nor_different() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar");
    for (what, alter, expected) in BREAKAGES {
        let image = Image::new();
        let mut members = image.archive();
        alter(&mut members);
        fs::write(&file, image.pack(&members)).unwrap();
        let text = refused(what, &file);
        // Errors show JSON's errors as they are.
        assert!(text.contains(&expected.replace("\\\"", "\"")), "{what}: no {expected:?} in {text}");
        assert!(text.contains("image.tar"), "{what}: {text}");
    }
}

#[test]
fn what_is_no_archive_is_neither_the_same_nor_different() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar");
    let whole = Image::new().pack(&Image::new().archive());
    for (what, content) in [
        ("text", b"not an archive".repeat(100)),
        ("nothing", Vec::new()),
        ("compressed text", gzip(b"not an archive")),
        ("a tar archive of something else", tar(&[File::new("x", "")], false)),
        ("an archive cut off in a header", whole[..700].to_vec()),
        ("an archive cut off in its last member", whole[..whole.len() - 1536].to_vec()),
        ("a compressed archive cut off", gzip(&whole)[..300].to_vec()),
    ] {
        fs::write(&file, content).unwrap();
        refused(what, &file);
    }
    let text = refused("a missing file", &folder.path().join("missing"));
    assert!(text.contains("missing"), "{text}");
    refused("a folder", &{
        let path = folder.path().join("folder");
        fs::create_dir(&path).unwrap();
        path
    });
}

#[test]
fn an_index_that_contradicts_the_manifest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar");
    let mut image = Image::new();
    image.form.blobs = true;
    let good = image.archive();
    // Everything of another image, its own index included, beside the manifest of this one.
    let mut other = image.clone();
    other.settings()["User"] = json!("0:0");
    let mut members: Members = other.archive().into_iter().filter(|(name, _)| name != "manifest.json").collect();
    members.extend(
        good.iter().filter(|(name, _)| !members.iter().any(|(own, _)| own == name)).cloned().collect::<Vec<_>>(),
    );
    fs::write(&file, image.pack(&members)).unwrap();
    let text = refused("another image in the index", &file);
    assert!(text.contains("index.json names another image than manifest.json"), "{text}");

    let mut members = good;
    let index = format!("blobs/sha256/{}", digest(&image.members()[0].1));
    member(&mut members, &index).push(b' ');
    fs::write(&file, image.pack(&members)).unwrap();
    let text = refused("a blob that is not what it is called", &file);
    assert!(text.contains(&format!("{index} is sha256:")), "{text}");
}

#[test]
fn an_archive_beyond_the_limits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar");
    let mut image = Image::new();
    image.file("etc/passwd").content = vec![0; 1 << 20];
    image.form.gzip_layers = true;
    image.save(&file);
    let refused = |limits: Limits, expected: &str| {
        let error = image_tools::Image::open_within(&file, &limits).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let limits = Limits::default();
    refused(Limits { layer_bytes: 100_000, ..limits }, "layer 2 is refused: it holds more than 100000 bytes unpacked");
    refused(Limits { entries: 2, ..limits }, "holds more than 2 entries");
    refused(Limits { document_bytes: 100, ..limits }, "config.json is refused: it holds more than 100 bytes");
    refused(Limits { metadata_bytes: 10, ..limits }, "more than 10 bytes of names and attributes");
    image.form.gzip_whole = true;
    image.save(&file);
    let whole = Limits { archive_bytes: 2000, ..limits };
    let error = image_tools::Image::open_within(&file, &whole).unwrap_err();
    assert!(error.to_string().contains("holds more than 2000 bytes unpacked"), "{error}");
}
