//! The files: these, and nothing else.

use crate::engine::{engine, image, run, succeed};
use crate::saved::{Entry, Saved};
use std::fs;
use std::process::Command;

fn files() -> Vec<Entry> {
    Saved::image().entries().into_iter().filter(|entry| !entry.is_folder()).collect()
}

#[test]
fn it_holds_these_files_and_nothing_else() {
    let names: Vec<String> = files().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["bin/bulkhead", "etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"]);
}

#[test]
fn everything_in_it_belongs_to_root_and_only_the_binary_is_executable() {
    for file in files() {
        let mode = if file.name == "bin/bulkhead" { "-r-xr-xr-x" } else { "-r--r--r--" };
        assert_eq!((file.mode.as_str(), file.owner.as_str()), (mode, "0/0"), "{}", file.name);
    }
}

#[test]
fn nobody_but_root_may_write_to_a_folder() {
    for folder in Saved::image().entries().into_iter().filter(Entry::is_folder) {
        assert!(matches!(folder.mode.as_str(), "drwxr-xr-x" | "dr-xr-xr-x"), "{folder:?}");
        assert_eq!(folder.owner, "0/0", "{folder:?}");
    }
}

#[test]
fn no_file_carries_capabilities() {
    for layer in Saved::image().layers() {
        let listing = succeed(Command::new("tar").args(["--xattrs", "--xattrs-include=*", "-tvvf"]).arg(layer));
        assert!(!listing.contains("security.capability"), "{listing}");
    }
}

#[test]
fn the_binary_is_static() {
    let saved = Saved::image();
    let binary = saved.extract("bin/bulkhead");
    let headers = succeed(Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(&binary));
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP") && !headers.contains("(NEEDED)"), "{headers}");
}

#[test]
fn its_users_are_root_and_the_one_it_runs_as() {
    let saved = Saved::image();
    let names = |file: &str| {
        let text = fs::read_to_string(saved.extract(file)).unwrap();
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(fields).map(|fields| (fields[0].clone(), fields[2].clone())).collect::<Vec<_>>()
    };
    let expected = [("root", "0"), ("bulkhead", "65532")].map(|(name, id)| (name.to_owned(), id.to_owned()));
    assert_eq!((names("etc/passwd"), names("etc/group")), (expected.to_vec(), expected.to_vec()));
}

#[test]
fn it_trusts_the_usual_authorities() {
    let saved = Saved::image();
    let bundle = fs::read_to_string(saved.extract("etc/ssl/certs/ca-certificates.crt")).unwrap();
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
