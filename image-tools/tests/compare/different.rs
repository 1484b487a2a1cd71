//! What makes a difference, and that the output names it.

use crate::altered;
use crate::fixture::{File, Image};
use serde_json::{Value, json};
use tar::EntryType;

/// What is altered, how, and what the output must hold.
type Alteration = (&'static str, fn(&mut Image), &'static [&'static str]);

fn without(value: &mut Value, name: &str) {
    value.as_object_mut().unwrap().remove(name).unwrap();
}

const CONFIGURATION: &[Alteration] = &[
    (
        "a variable added",
        |image| image.settings()["Env"].as_array_mut().unwrap().insert(0, json!("LD_PRELOAD=/x")),
        &[r#"config.Env[0]: "LD_PRELOAD=/x" in the second only"#],
    ),
    (
        "a variable changed",
        |image| image.settings()["Env"][1] = json!("ENVIRONMENT=development"),
        &[r#"config.Env[1]: "ENVIRONMENT=production" in the first, "ENVIRONMENT=development" in the second"#],
    ),
    (
        "a variable removed",
        |image| image.settings()["Env"] = json!(["PATH=/bin"]),
        &[r#"config.Env[1]: "ENVIRONMENT=production" in the first only"#],
    ),
    ("entrypoint", |image| image.settings()["Entrypoint"] = json!(["/bin/two"]), &["config.Entrypoint[0]", "/bin/two"]),
    ("command", |image| image.settings()["Cmd"] = json!(["start", "--debug"]), &[r#"config.Cmd[1]: "--debug""#]),
    (
        "a label of ours",
        |image| image.settings()["Labels"]["org.opencontainers.image.revision"] = json!("abd"),
        &[r#"config.Labels["org.opencontainers.image.revision"]: "abc" in the first, "abd" in the second"#],
    ),
    ("a foreign label", |image| image.settings()["Labels"]["foreign"] = json!("x"), &["config.Labels.foreign"]),
    (
        "a label that resembles the builder's",
        |image| image.settings()["Labels"]["io.buildah.version2"] = json!("x"),
        &["io.buildah.version2"],
    ),
    ("user", |image| image.settings()["User"] = json!("0:0"), &[r#"config.User: "65532:65532" in the first, "0:0""#]),
    ("no health check", |image| without(image.settings(), "Healthcheck"), &["config.Healthcheck", "in the first only"]),
    (
        "health check",
        |image| image.settings()["Healthcheck"]["Interval"] = json!(1),
        &["config.Healthcheck.Interval: 30000000000 in the first, 1 in the second"],
    ),
    ("a volume", |image| image.settings()["Volumes"]["/data"] = json!({}), &[r#"config.Volumes["/data"]"#]),
    ("a port", |image| image.settings()["ExposedPorts"]["22/tcp"] = json!({}), &[r#"config.ExposedPorts["22/tcp"]"#]),
    ("working directory", |image| image.settings()["WorkingDir"] = json!("/tmp"), &["config.WorkingDir", "/tmp"]),
    ("stop signal", |image| image.settings()["StopSignal"] = json!("SIGKILL"), &["config.StopSignal", "SIGKILL"]),
    ("a trigger", |image| image.settings()["OnBuild"] = json!(["RUN x"]), &["config.OnBuild[0]", "RUN x"]),
    ("shell", |image| image.settings()["Shell"] = json!(["/bin/sh"]), &["config.Shell"]),
    (
        "null instead of nothing",
        |image| image.settings()["OnBuild"] = json!(null),
        &["config.OnBuild: [] in the first, null"],
    ),
    ("a field in other letters", |image| image.settings()["env"] = json!(["A=b"]), &["config.env"]),
    ("architecture", |image| image.config["architecture"] = json!("arm64"), &["architecture", "arm64"]),
    ("variant", |image| image.config["variant"] = json!("v7"), &["variant", "v7"]),
    (
        "system",
        |image| image.config["os"] = json!("windows"),
        &[r#"os: "linux" in the first, "windows" in the second"#],
    ),
    ("time", |image| image.config["created"] = json!("2024-01-01T00:00:00Z"), &["created: ", "2024-01-01"]),
    ("history", |image| image.config["history"][0]["created_by"] = json!("ADD"), &["history[0].created_by", "ADD"]),
    (
        "a step of the history",
        |image| image.config["history"].as_array_mut().unwrap().push(json!({"empty_layer": true})),
        &["history[2]", "empty_layer"],
    ),
    ("a comment of the image", |image| image.config["comment"] = json!("x"), &["comment"]),
    ("a field that nobody knows", |image| image.config["moby.buildkit.other"] = json!("x"), &["moby.buildkit.other"]),
];

const LAYERS: &[Alteration] = &[
    (
        "a byte",
        |image| image.file("etc/passwd").content[0] = b'R',
        &["etc/passwd content: sha256:", "DIFFERS  layer 2", "rootfs.diff_ids[1]"],
    ),
    (
        "size",
        |image| image.file("etc/passwd").content.push(b'\n'),
        &["etc/passwd size: 15 in the first, 16 in the second", "etc/passwd content"],
    ),
    ("mode", |image| image.file("bin/one").mode = 0o755, &["bin/one mode: 0555 in the first, 0755 in the second"]),
    ("setuid", |image| image.file("bin/one").mode = 0o4555, &["bin/one mode: 0555 in the first, 4555 in the second"]),
    ("owner's number", |image| image.file("bin/one").uid = 1000, &["bin/one uid: 0 in the first, 1000"]),
    ("group's number", |image| image.file("bin/one").gid = 1000, &["bin/one gid: 0 in the first, 1000"]),
    (
        "owner's name",
        |image| image.file("bin/one").owner = "eve".to_owned(),
        &["bin/one owner: none in the first, eve"],
    ),
    ("time", |image| image.file("bin/one").mtime += 1, &["bin/one mtime: 1700000000 in the first, 1700000001"]),
    (
        "a fraction of the time",
        |image| image.file("bin/one").attributes = vec![("mtime".to_owned(), b"1700000000.5".to_vec())],
        &["bin/one mtime: 1700000000 in the first, 1700000000.5"],
    ),
    (
        "a capability",
        |image| {
            // Binary, with a line's end in it.
            let value = b"\x01\x00\x00\x02\x0a\x20\x00".to_vec();
            image.file("bin/one").attributes = vec![("SCHILY.xattr.security.capability".to_owned(), value)];
        },
        &["bin/one attribute SCHILY.xattr.security.capability: none in the first, \\u{1}"],
    ),
    ("kind", |image| image.file("bin/one").kind = EntryType::Fifo, &["cannot be listed", "a fifo with a content"]),
    (
        "hard link in place of a file",
        |image| *image.file("etc/group") = File::link("etc/group", EntryType::Link, "etc/passwd"),
        &["etc/group kind: file in the first, hard link in the second", "etc/group link target: none in the first"],
    ),
    (
        "where a hard link leads",
        |image| image.file("bin/two").target = "bin/three".to_owned(),
        &["bin/two link target: bin/one in the first, bin/three in the second"],
    ),
    (
        "where a symlink leads",
        |image| image.file("bin/three").target = "two".to_owned(),
        &["bin/three link target: one in the first, two in the second"],
    ),
    (
        "a file added",
        |image| image.layers[1].push(File::new("etc/shadow", "x")),
        &["etc/shadow (file, mode 0444, 0:0, 1 bytes, sha256:", "in the second only"],
    ),
    ("a file removed", |image| drop(image.layers[1].pop()), &["etc/group (file", "in the first only"]),
    (
        "a whiteout",
        |image| image.layers[1].push(File::new("bin/.wh.two", "")),
        &["bin/.wh.two (whiteout", "in the second only"],
    ),
    (
        "an opaque whiteout",
        |image| image.layers[1].push(File::new("bin/.wh..wh..opq", "")),
        &["bin/.wh..wh..opq (opaque whiteout", "in the second only"],
    ),
    (
        "a name twice",
        |image| image.layers[1].push(File::new("etc/passwd", "eve")),
        &["etc/passwd (file", "in the second only", "etc/passwd stands 1 times in the first, 2 times in the second"],
    ),
    (
        "spelling",
        |image| image.file("etc/group").name = "./etc/group".to_owned(),
        &["etc/group spelling: etc/group in the"],
    ),
    (
        "a device",
        |image| image.layers[1].push(File { kind: EntryType::Char, ..File::new("dev/mem", "") }),
        &["dev/mem (character device"],
    ),
    ("an escape in a name", |image| image.layers[1].push(File::new("\x1b[2Jx", "")), &["\\u{1b}[2Jx (file"]),
    (
        "form of the layers' archives",
        |image| image.ustar = true,
        &["every entry is the same: only the form of the archive differs"],
    ),
    (
        "kind in the mode, as podman writes it",
        |image| image.file("bin/one").mode = 0o100_555,
        &["every entry is the same: only the form of the archive differs"],
    ),
    (
        "order of the entries",
        |image| image.layers[1].reverse(),
        &["only the form of the archive differs", "the entries stand in another order"],
    ),
    (
        "data after a layer's end",
        |image| image.trailing = b"hidden".to_vec(),
        &["only the form of the archive differs", "data after the end of the archive in the second"],
    ),
    (
        "a layer added",
        |image| image.layers.push(vec![File::new("x", "")]),
        &["number of layers: 2 in the first, 3 in the second", "layer 3 sha256:", "x (file, mode 0444"],
    ),
    (
        "a layer removed",
        |image| drop(image.layers.pop()),
        &["number of layers: 2 in the first, 1 in the second", "layer 2 sha256:", "etc/passwd (file"],
    ),
    (
        "layers in another order",
        |image| image.layers.reverse(),
        &["the layers stand in another order: this one is layer 2 of the second"],
    ),
];

#[test]
fn what_makes_a_difference_is_named() {
    for (what, alter, expected) in CONFIGURATION.iter().chain(LAYERS) {
        let (code, text) = altered(alter);
        assert_eq!(code, 1, "{what}: {text}");
        assert!(text.ends_with("the images are not the same\n"), "{what}: {text}");
        for part in *expected {
            assert!(text.contains(part), "{what}: no {part:?} in:\n{text}");
        }
    }
}

#[test]
fn a_difference_in_the_configuration_leaves_the_layers_the_same() {
    for (what, alter, _) in CONFIGURATION {
        let (_, text) = altered(alter);
        assert_eq!(text.matches("DIFFERS").count(), 1, "{what}: {text}");
        assert!(text.contains("DIFFERS  configuration"), "{what}: {text}");
        assert_eq!(text.matches("same     layer").count(), 2, "{what}: {text}");
    }
}

#[test]
fn a_difference_is_found_whatever_the_form() {
    type FormAlteration = fn(&mut Image);
    let forms: [FormAlteration; 4] = [
        |image| image.form.gzip_layers = true,
        |image| image.form.zstd_layers = true,
        |image| image.form.gzip_whole = true,
        |image| image.form.blobs = true,
    ];
    for form in forms {
        let (code, text) = altered(|image| {
            form(image);
            image.file("etc/passwd").content[0] = b'R';
        });
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("etc/passwd content: sha256:"), "{text}");
    }
}
