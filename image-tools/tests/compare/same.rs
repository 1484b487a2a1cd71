//! What makes no difference: the archive's form, and what builders say of themselves.

use crate::fixture::{Form, Image};
use crate::{altered, compare};
use serde_json::json;

type Alteration = (&'static str, fn(&mut Image));

const ALTERATIONS: &[Alteration] = &[
    ("nothing", |_| {}),
    ("layers compressed by gzip", |image| image.form.gzip_layers = true),
    ("layers compressed by zstd", |image| image.form.zstd_layers = true),
    ("the whole archive compressed by gzip", |image| image.form.gzip_whole = true),
    ("the whole archive compressed by zstd", |image| image.form.zstd_whole = true),
    ("both compressed", |image| image.form = Form { gzip_whole: true, zstd_layers: true, ..Form::default() }),
    ("names of older dockers", |image| image.form.legacy_names = true),
    ("blobs and an index", |image| image.form.blobs = true),
    ("blobs, compressed", |image| image.form = Form { blobs: true, gzip_layers: true, ..Form::default() }),
    ("times of the outer archive", |image| image.form.mtime = 1_234_567),
    ("order of the outer archive", |image| image.form.reordered = true),
    ("order and spaces of the JSON", |image| image.form.pretty = true),
    ("tags", |image| image.form.tags = vec!["a:1".to_owned(), "b:2".to_owned()]),
    ("version of buildah", |image| image.settings()["Labels"]["io.buildah.version"] = json!("1.43.0")),
    ("no version of buildah", |image| {
        image.settings()["Labels"].as_object_mut().unwrap().remove("io.buildah.version");
    }),
    ("the last step's container", |image| image.config["container"] = json!("dd")),
    ("the last step's container's configuration", |image| image.config["container_config"] = json!({"Cmd": ["y"]})),
    ("no ids", |image| {
        for name in ["id", "parent", "container", "container_config", "docker_version"] {
            image.config.as_object_mut().unwrap().remove(name);
        }
    }),
    ("the build's host", |image| image.settings()["Hostname"] = json!("elsewhere")),
    ("the build's intermediate image", |image| image.settings()["Image"] = json!("sha256:ee")),
    ("a comment in the history", |image| image.config["history"][1]["comment"] = json!("buildkit.dockerfile.v0")),
    ("BuildKit's cache and sources", |image| {
        image.config["moby.buildkit.cache.v0"] = json!("aaaa");
        image.config["moby.buildkit.buildinfo.v1"] = json!("bbbb");
    }),
];

#[test]
fn what_makes_no_difference_is_the_same() {
    for (what, alter) in ALTERATIONS {
        let (code, text) = altered(alter);
        assert_eq!(code, 0, "{what}: {text}");
        assert!(text.ends_with("the images are the same\n"), "{what}: {text}");
        assert!(!text.contains("DIFFERS"), "{what}: {text}");
    }
}

#[test]
fn the_digest_of_each_layer_is_named() {
    let image = Image::new();
    let (_, text) = altered(|image| image.form.gzip_layers = true);
    for files in &image.layers {
        let digest = crate::fixture::digest(&image.layer(files));
        assert!(text.contains(&format!("sha256:{digest}")), "{text}");
    }
}

#[test]
fn a_layer_may_be_a_link_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one.tar"), folder.path().join("other.tar"));
    let mut image = Image::new();
    image.layers[1] = image.layers[0].clone();
    image.form.legacy_names = true;
    image.save(&one);
    // As docker up to 24 saves a layer that it has saved before.
    let mut files: Vec<_> = image
        .archive()
        .into_iter()
        .map(|(name, content)| crate::fixture::File { content, ..crate::fixture::File::new(&name, "") })
        .collect();
    let second = files.iter_mut().find(|file| file.name == "l1/layer.tar").unwrap();
    *second = crate::fixture::File::link("l1/layer.tar", tar::EntryType::Symlink, "../l0/layer.tar");
    std::fs::write(&other, crate::fixture::tar(&files, false)).unwrap();
    let (code, text) = compare(&one, &other);
    assert_eq!(code, 0, "{text}");
}
