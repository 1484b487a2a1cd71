//! The files: these, and nothing else.

use crate::engine::{engine, image, run, succeed};
use crate::saved::{Entry, Kind, Saved};
use std::io::Write;
use std::process::Command;
use tempfile::NamedTempFile;

fn files() -> Vec<Entry> {
    Saved::image().entries().into_iter().filter(|entry| entry.kind != Kind::Folder).collect()
}

fn name(entry: &Entry) -> String {
    String::from_utf8(entry.name()).unwrap()
}

#[test]
fn it_holds_these_files_and_nothing_else() {
    let names: Vec<String> = files().iter().map(name).collect();
    assert_eq!(names, ["bin/bulkhead", "etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"]);
}

#[test]
fn everything_in_it_belongs_to_root_and_only_the_binary_is_executable() {
    for file in files() {
        let expected = if name(&file) == "bin/bulkhead" { 0o555 } else { 0o444 };
        assert_eq!((file.kind, file.mode, file.uid, file.gid), (Kind::File, expected, 0, 0), "{file}");
    }
}

#[test]
fn nobody_but_root_may_write_to_a_folder() {
    for folder in Saved::image().entries().into_iter().filter(|entry| entry.kind == Kind::Folder) {
        assert!(matches!(folder.mode, 0o755 | 0o555), "{folder}");
        assert_eq!((folder.uid, folder.gid), (0, 0), "{folder}");
    }
}

#[test]
fn no_file_carries_capabilities() {
    for entry in Saved::image().entries() {
        let names = entry.attributes.keys().map(|name| String::from_utf8_lossy(name));
        assert!(!names.into_iter().any(|name| name.contains("security.capability")), "{entry}");
    }
}

#[test]
fn the_binary_is_static() {
    let mut binary = NamedTempFile::new().unwrap();
    binary.write_all(&Saved::image().extract("bin/bulkhead")).unwrap();
    let headers =
        succeed(Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(binary.path()));
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP") && !headers.contains("(NEEDED)"), "{headers}");
}

#[test]
fn its_users_are_root_and_the_one_it_runs_as() {
    let saved = Saved::image();
    let names = |file: &str| {
        let text = String::from_utf8(saved.extract(file)).unwrap();
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(fields).map(|fields| (fields[0].clone(), fields[2].clone())).collect::<Vec<_>>()
    };
    let expected = [("root", "0"), ("bulkhead", "65532")].map(|(name, id)| (name.to_owned(), id.to_owned()));
    assert_eq!((names("etc/passwd"), names("etc/group")), (expected.to_vec(), expected.to_vec()));
}

#[test]
fn it_trusts_the_usual_authorities() {
    let saved = Saved::image();
    let bundle = String::from_utf8(saved.extract("etc/ssl/certs/ca-certificates.crt")).unwrap();
    let count = bundle.matches("-----BEGIN CERTIFICATE-----").count();
    assert!((100..400).contains(&count), "{count} certificates");
}

#[test]
fn it_has_no_shell() {
    for shell in ["/bin/sh", "/bin/bash", "/bin/busybox"] {
        let output = run(&mut engine(&["run", "--rm", "--entrypoint", shell, &image()]));
        // What the engines say of a program that is not there, and of nothing else that may go wrong.
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert_eq!(output.status.code(), Some(127), "{shell}: {text}");
        assert!(text.contains("no such file"), "{shell}: {text}");
    }
}
