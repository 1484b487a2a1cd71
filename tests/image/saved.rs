//! The image as the engine saves it: layers and configuration, byte for byte.

use crate::engine::{engine, image, run, succeed};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A saved image, unpacked into a folder that goes with this value.
pub(crate) struct Saved {
    folder: TempDir,
    manifest: Value,
}

/// A file, link or folder of a layer, as `tar` lists it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Such as `-r-xr-xr-x`.
    pub(crate) mode: String,
    /// Such as `0/0`.
    pub(crate) owner: String,
    /// In bytes.
    pub(crate) size: u64,
    /// Without a slash in front.
    pub(crate) name: String,
}

impl Entry {
    pub(crate) fn is_folder(&self) -> bool {
        self.mode.starts_with('d')
    }
}

impl Saved {
    pub(crate) fn image() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        succeed(engine(&["save", "--output"]).arg(&archive).arg(image()));
        succeed(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder.path()));
        fs::remove_file(archive).unwrap();
        let manifest = fs::read(folder.path().join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        Self { folder, manifest: manifest[0].clone() }
    }

    /// The configuration with its history, JSON.
    pub(crate) fn config(&self) -> Vec<u8> {
        fs::read(self.folder.path().join(self.manifest["Config"].as_str().unwrap())).unwrap()
    }

    /// The layers' archives, unpacked: some engines save them as they were pulled, compressed.
    pub(crate) fn layers(&self) -> Vec<PathBuf> {
        let layers = self.manifest["Layers"].as_array().unwrap().iter();
        layers
            .map(|layer| {
                let layer = self.folder.path().join(layer.as_str().unwrap());
                if !fs::read(&layer).unwrap().starts_with(b"\x1f\x8b") {
                    return layer;
                }
                let unpacked = layer.with_extension("unpacked");
                gzip("--decompress", &layer, Stdio::from(fs::File::create(&unpacked).unwrap()));
                unpacked
            })
            .collect()
    }

    /// Everything in every layer, sorted by name.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.layers().iter().flat_map(|layer| list(layer)).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries
    }

    /// Takes one file out of the image.
    pub(crate) fn extract(&self, name: &str) -> PathBuf {
        // What a later layer holds stands before the same of an earlier one.
        for layer in self.layers().iter().rev() {
            for spelled in [name.to_owned(), format!("./{name}")] {
                let mut command = Command::new("tar");
                if run(command.arg("-xf").arg(layer).arg("-C").arg(self.folder.path()).arg(&spelled)).status.success() {
                    return self.folder.path().join(name);
                }
            }
        }
        panic!("{name} is in no layer");
    }
}

/// Runs `gzip` on a file; returns what it prints.
pub(crate) fn gzip(how: &str, file: &Path, output: Stdio) -> Vec<u8> {
    // By its standard input, since it would look for `.gz` in a name; without the file's time, which may be before any
    // that its header has room for.
    let input = fs::File::open(file).unwrap();
    let child = Command::new("gzip").args([how, "--no-name", "--stdout"]).stdin(input).stdout(output).spawn();
    let done = child.unwrap().wait_with_output().unwrap();
    assert!(done.status.success(), "gzip {how} {}", file.display());
    done.stdout
}

fn list(layer: &Path) -> Vec<Entry> {
    let listing = succeed(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(layer));
    let entry = |line: &str| {
        // -r-xr-xr-x 0/0 12345 1970-01-01 00:00 ./bin/bulkhead
        let mut fields = line.split_whitespace().map(str::to_owned);
        let (mode, owner, size) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let name = fields.skip(2).collect::<Vec<_>>().join(" ");
        let name = name.trim_start_matches("./").trim_end_matches('/').to_owned();
        Entry { mode, owner, size: size.parse().unwrap_or(0), name }
    };
    listing.lines().map(entry).collect()
}
