//! The image as the engine saves it: layers and configuration, byte for byte.

use crate::engine::{engine, image, succeed};
use flate2::Compression;
use flate2::read::GzEncoder;
pub(crate) use image_tools::{Entry, Kind, Layer};
use std::io::{Read, copy, sink};
use std::sync::LazyLock;

/// A saved image.
pub(crate) struct Saved {
    image: image_tools::Image,
}

impl Saved {
    /// The one that is tested: saved once, for all tests.
    pub(crate) fn image() -> &'static Self {
        static SAVED: LazyLock<Saved> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let archive = folder.path().join("image.tar");
            succeed(engine(&["save", "--output"]).arg(&archive).arg(image()));
            // It stays open.
            Saved { image: image_tools::Image::open(&archive).unwrap() }
        });
        &SAVED
    }

    /// The configuration with its history, JSON.
    pub(crate) fn config(&self) -> &[u8] {
        self.image.config()
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        self.image.layers()
    }

    /// A layer's archive, uncompressed.
    pub(crate) fn read(&self, layer: &Layer) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.image.read(layer).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// How many bytes `gzip -9` makes of a layer.
    pub(crate) fn compressed(&self, layer: &Layer) -> u64 {
        copy(&mut GzEncoder::new(self.image.read(layer).unwrap(), Compression::best()), &mut sink()).unwrap()
    }

    /// Everything in every layer, sorted by name.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            self.layers().iter().flat_map(|layer| self.image.entries(layer).unwrap()).collect();
        entries.sort_by_key(Entry::name);
        entries
    }

    /// Takes one file out of the image.
    pub(crate) fn extract(&self, name: &str) -> Vec<u8> {
        // What a later layer holds stands before the same of an earlier one.
        let found = self.layers().iter().rev().find_map(|layer| self.image.file(layer, name).unwrap());
        found.unwrap_or_else(|| panic!("{name} is in no layer"))
    }
}
