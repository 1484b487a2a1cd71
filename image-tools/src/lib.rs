//! Reads the archives in which docker and podman save images, and says whether two images are the same.
//!
//! An archive may come from anybody: layers are streamed, names are never used as paths, and [`Limits`] bounds what is
//! held and unpacked.

mod archive;
mod compare;
mod config;
mod document;
mod error;
mod image;
mod tape;
mod unpack;

pub use archive::Archive;
pub use compare::{Comparison, Part, compare, compare_files};
pub use error::Error;
pub use image::{Image, Layer};
pub use tape::{Content, Entry, Kind};

/// How much of an archive is read at most; what has more is refused with [`Error::TooLarge`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an archive that is compressed as a whole, unpacked into a temporary file.
    pub archive_bytes: u64,
    /// Bytes of all layers of an image together, unpacked. They are streamed, never held.
    pub layer_bytes: u64,
    /// Entries of an archive, or of one layer.
    pub entries: usize,
    /// Bytes of the names, links and extended attributes of an archive, or of one layer.
    pub metadata_bytes: u64,
    /// Bytes of one JSON document, such as `manifest.json`.
    pub document_bytes: u64,
}

impl Default for Limits {
    /// Enough for images of up to two gigabytes. A comparison holds a few hundred megabytes at most.
    fn default() -> Self {
        Self {
            archive_bytes: 2 << 30,
            layer_bytes: 2 << 30,
            entries: 100_000,
            metadata_bytes: 32 << 20,
            document_bytes: 4 << 20,
        }
    }
}
