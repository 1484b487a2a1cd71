//! An image in its archive: the configuration, and layers whose content is what the configuration says.

use crate::tape::{Entry, Kind, list, walk};
use crate::unpack::{Bounded, digest, unpacked};
use crate::{Archive, Error, Limits};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// The one image of an archive. Its layers have been read once and are what the configuration says.
#[derive(Debug)]
pub struct Image {
    archive: Archive,
    limits: Limits,
    config: Vec<u8>,
    document: Value,
    layers: Vec<Layer>,
}

/// A layer.
#[derive(Clone, Debug)]
pub struct Layer {
    member: String,
    /// Of the layer uncompressed, `sha256:...`.
    pub digest: String,
    /// Of the layer uncompressed, in bytes.
    pub size: u64,
}

/// Where the newer form of an archive keeps everything, by its digest (OCI image-layout.md, "Blobs").
const BLOBS: &str = "blobs/sha256/";

impl Image {
    /// Opens an archive, with the default limits.
    ///
    /// # Errors
    /// As [`Image::open_within`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_within(path, &Limits::default())
    }

    /// Opens an archive and reads all of it once.
    ///
    /// # Errors
    /// A file that is no archive of exactly one image, that exceeds `limits`, or whose parts contradict each other.
    pub fn open_within(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let archive = Archive::open(path, limits)?;
        if !archive.has("manifest.json") {
            let what = path.display();
            return Err(Error::NotAnImage(format!(
                "{what} is no archive of `docker save` or `podman save`: it has no manifest.json"
            )));
        }
        let (_, manifest) = archive.document("manifest.json", limits)?;
        let image = match manifest.as_array().map(Vec::as_slice) {
            Some([image]) => image,
            Some(images) => {
                return Err(Error::NotAnImage(format!("the archive holds {} images, not one", images.len())));
            }
            None => return Err(Error::NotAnImage("manifest.json is not a list of images".to_owned())),
        };
        let name = text(&image["Config"], "manifest.json: Config")?;
        let (config, document) = archive.document(&name, limits)?;
        let members = texts(&image["Layers"], "manifest.json: Layers")?;
        let diff_ids = texts(&document["rootfs"]["diff_ids"], "the configuration's rootfs.diff_ids")?;
        if members.len() != diff_ids.len() {
            return Err(Error::NotAnImage(format!(
                "the archive has {} layers, its configuration {}",
                members.len(),
                diff_ids.len()
            )));
        }
        let mut image = Self { archive, limits: *limits, config, document, layers: Vec::new() };
        image.check_blob(&name)?;
        image.check_index(&name, &members)?;
        let mut left = limits.layer_bytes;
        for (index, (member, expected)) in members.into_iter().zip(diff_ids).enumerate() {
            image.check_blob(&member)?;
            let what = format!("layer {}", index + 1);
            let reading = |source| Error::reading(&what, source);
            let content = unpacked(image.archive.member(&member)?).map_err(reading)?;
            let (digest, size) = digest(Bounded::new(content, left, limits.layer_bytes)).map_err(reading)?;
            if digest != expected {
                return Err(Error::NotAnImage(format!("{what} is {digest}, but the configuration says {expected}")));
            }
            left -= size;
            image.layers.push(Layer { member, digest, size });
        }
        Ok(image)
    }

    /// The configuration with its history, JSON as it stands in the archive.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The configuration, read.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The layers, the lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// A layer's archive, uncompressed.
    ///
    /// # Errors
    /// The archive cannot be read any more.
    pub fn read<'a>(&'a self, layer: &Layer) -> Result<impl Read + use<'a>, Error> {
        let content = unpacked(self.archive.member(&layer.member)?);
        let content = content.map_err(|source| Error::reading(&layer.digest, source))?;
        Ok(Bounded::new(content, layer.size, layer.size))
    }

    /// What stands in a layer, in its order.
    ///
    /// # Errors
    /// A layer that is no tar archive, or one that readers understand differently.
    pub fn entries(&self, layer: &Layer) -> Result<Vec<Entry>, Error> {
        self.list(layer).map(|(entries, _)| entries)
    }

    /// The content of a file of a layer, `None` where the layer has no file of that name. It is held in memory.
    ///
    /// # Errors
    /// As [`Image::entries`].
    pub fn file(&self, layer: &Layer, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut found = None;
        let read = walk(self.read(layer)?, &self.limits, |entry, _, content| {
            if entry.kind == Kind::File && entry.name() == name.as_bytes() {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                found = Some(bytes);
            }
            Ok(())
        });
        read.map_err(|source| Error::reading(&layer.digest, source))?;
        Ok(found)
    }

    /// The entries, and whether anything follows the mark at the layer's end.
    pub(crate) fn list(&self, layer: &Layer) -> Result<(Vec<Entry>, bool), Error> {
        list(self.read(layer)?, &self.limits).map_err(|source| Error::reading(&layer.digest, source))
    }

    /// What is named by its digest must have it.
    fn check_blob(&self, name: &str) -> Result<(), Error> {
        let Some(expected) = name.strip_prefix(BLOBS) else { return Ok(()) };
        let (digest, _) = digest(self.archive.member(name)?).map_err(|source| Error::reading(name, source))?;
        if digest != format!("sha256:{expected}") {
            return Err(Error::NotAnImage(format!("{name} is {digest}")));
        }
        Ok(())
    }

    /// Newer archives say what they hold in `index.json` as well, and newer engines go by that: both must name the same.
    fn check_index(&self, config: &str, layers: &[String]) -> Result<(), Error> {
        if !self.archive.has("index.json") {
            return Ok(());
        }
        let (_, index) = self.archive.document("index.json", &self.limits)?;
        let mut images = Vec::new();
        self.gather(&index, 0, &mut images)?;
        let [image] = images.as_slice() else {
            return Err(Error::NotAnImage(format!(
                "index.json names {} images of this archive, not one",
                images.len()
            )));
        };
        let manifest_layers = image["layers"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let named: Vec<String> = std::iter::once(&image["config"]).chain(manifest_layers).filter_map(blob).collect();
        let expected: Vec<&str> = std::iter::once(config).chain(layers.iter().map(String::as_str)).collect();
        if named != expected {
            return Err(Error::NotAnImage("index.json names another image than manifest.json".to_owned()));
        }
        Ok(())
    }

    /// Gathers the manifests under an index that the archive holds. Engines save an index of several platforms with the
    /// one image that they have; what has the platform unknown is BuildKit's attestation (moby/buildkit
    /// docs/attestations/attestation-storage.md).
    fn gather(&self, index: &Value, depth: usize, images: &mut Vec<Value>) -> Result<(), Error> {
        if depth > 2 || images.len() > 100 {
            return Err(Error::NotAnImage("index.json leads too far".to_owned()));
        }
        for descriptor in index["manifests"].as_array().into_iter().flatten() {
            let Some(name) = blob(descriptor) else { continue };
            if descriptor["platform"]["os"] == "unknown" || !self.archive.has(&name) {
                continue;
            }
            self.check_blob(&name)?;
            let (_, document) = self.archive.document(&name, &self.limits)?;
            if document["manifests"].is_array() {
                self.gather(&document, depth + 1, images)?;
            } else if !images.contains(&document) {
                images.push(document);
            }
        }
        Ok(())
    }
}

/// The member that a descriptor names.
fn blob(descriptor: &Value) -> Option<String> {
    let digest = descriptor["digest"].as_str()?.strip_prefix("sha256:")?;
    Some(format!("{BLOBS}{digest}"))
}

fn text(value: &Value, what: &str) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| Error::NotAnImage(format!("{what} is not a name")))
}

fn texts(value: &Value, what: &str) -> Result<Vec<String>, Error> {
    match value {
        // Go writes so for a list that has never been made.
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(|item| text(item, what)).collect(),
        _ => Err(Error::NotAnImage(format!("{what} is not a list"))),
    }
}
