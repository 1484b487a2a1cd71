//! Two images, compared.

use crate::tape::{Content, Entry, Kind};
use crate::{Error, Image, Layer, config};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a comparison has found: [`fmt::Display`] writes it as text.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What was compared: "images" or "files".
    pub of: &'static str,
    /// The configuration, the number of layers where it differs, then each layer.
    pub parts: Vec<Part>,
}

/// One thing that was compared.
#[derive(Clone, Debug)]
pub struct Part {
    /// What, with its digests.
    pub title: String,
    /// Whether it is the same in both.
    pub same: bool,
    /// Where not, what differs, each on a line.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Whether the images are the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.parts.iter().all(|part| part.same)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for part in &self.parts {
            writeln!(formatter, "{:8} {}", if part.same { "same" } else { "DIFFERS" }, part.title)?;
            for difference in &part.differences {
                writeln!(formatter, "         {difference}")?;
            }
        }
        let verdict = if self.is_same() { "the same" } else { "not the same" };
        write!(formatter, "the {} are {verdict}", self.of)
    }
}

/// Compares two images: their configurations, without what the builder says of itself, and their layers uncompressed,
/// byte for byte. How an archive is made, and what it is called, does not count.
#[must_use]
pub fn compare(one: &Image, other: &Image) -> Comparison {
    let differences = config::differences(one.document(), other.document());
    let mut parts = vec![Part { title: "configuration".to_owned(), same: differences.is_empty(), differences }];
    parts.extend(every_layer(one, other, layers));
    Comparison { of: "images", parts }
}

/// Compares the files of two images that unlike builders have made: each entry of each layer, by its name, content, kind, mode, owner,
/// time, links and extended attributes. Neither the configuration counts nor the form of the layers' archives.
#[must_use]
pub fn compare_files(one: &Image, other: &Image) -> Comparison {
    let files = |one: &Image, layer: &Layer, other: &Image, counterpart: &Layer| match (
        one.entries(layer),
        other.entries(counterpart),
    ) {
        (Ok(mine), Ok(theirs)) => entries(&mine, &theirs),
        (Err(error), _) | (_, Err(error)) => vec![unlisted(&error)],
    };
    Comparison { of: "files", parts: every_layer(one, other, files) }
}

/// The number of layers where it differs, then each layer. `differences` is asked of those that are not the same byte for byte.
fn every_layer(
    one: &Image,
    other: &Image,
    differences: impl Fn(&Image, &Layer, &Image, &Layer) -> Vec<String>,
) -> Vec<Part> {
    let (mine, theirs) = (one.layers(), other.layers());
    let mut parts = Vec::new();
    if mine.len() != theirs.len() {
        let title = format!("number of layers: {} in the first, {} in the second", mine.len(), theirs.len());
        parts.push(Part { title, same: false, differences: Vec::new() });
    }
    for index in 0..mine.len().max(theirs.len()) {
        let name = format!("layer {}", index + 1);
        let part = match (mine.get(index), theirs.get(index)) {
            (Some(layer), Some(counterpart)) if layer.digest == counterpart.digest => {
                Part { title: format!("{name} {}", layer.digest), same: true, differences: Vec::new() }
            }
            (Some(layer), Some(counterpart)) => {
                let differences = differences(one, layer, other, counterpart);
                Part {
                    title: format!("{name} {} in the first, {} in the second", layer.digest, counterpart.digest),
                    same: differences.is_empty(),
                    differences,
                }
            }
            (Some(layer), None) => only(&name, one, layer, "first"),
            (None, Some(layer)) => only(&name, other, layer, "second"),
            (None, None) => continue,
        };
        parts.push(part);
    }
    parts
}

fn only(name: &str, image: &Image, layer: &Layer, which: &str) -> Part {
    let differences = match image.entries(layer) {
        Ok(entries) => entries.iter().map(|entry| format!("{entry} in the {which} only")).collect(),
        Err(error) => vec![unlisted(&error)],
    };
    Part { title: format!("{name} {} in the {which} only", layer.digest), same: false, differences }
}

fn unlisted(error: &Error) -> String {
    format!("what differs in it cannot be listed: {error}")
}

/// What two layers differ in whose digests differ; never nothing.
fn layers(one: &Image, layer: &Layer, other: &Image, counterpart: &Layer) -> Vec<String> {
    let elsewhere = |image: &Image, digest: &str| image.layers().iter().position(|layer| layer.digest == digest);
    if let (Some(there), Some(_)) = (elsewhere(other, &layer.digest), elsewhere(one, &counterpart.digest)) {
        return vec![format!("the layers stand in another order: this one is layer {} of the second", there + 1)];
    }
    match (one.list(layer), other.list(counterpart)) {
        (Ok((mine, trailing)), Ok((theirs, their_trailing))) => {
            let mut found = entries(&mine, &theirs);
            if found.is_empty() {
                found.push("every entry is the same: only the form of the archive differs".to_owned());
            }
            if !mine.iter().map(Entry::name).eq(theirs.iter().map(Entry::name)) && found.len() == 1 {
                found.push("the entries stand in another order".to_owned());
            }
            for (which, trailing) in [("first", trailing), ("second", their_trailing)] {
                if trailing {
                    found.push(format!("data after the end of the archive in the {which}"));
                }
            }
            found
        }
        (Err(error), _) | (_, Err(error)) => vec![unlisted(&error)],
    }
}

fn entries(one: &[Entry], other: &[Entry]) -> Vec<String> {
    let (one, other) = (by_name(one), by_name(other));
    let names: BTreeSet<&Vec<u8>> = one.keys().chain(other.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let none = Vec::new();
        let (mine, theirs) = (one.get(name).unwrap_or(&none), other.get(name).unwrap_or(&none));
        for index in 0..mine.len().max(theirs.len()) {
            match (mine.get(index), theirs.get(index)) {
                (Some(one), Some(other)) => found.extend(fields(one, other)),
                (Some(entry), None) => found.push(format!("{entry} in the first only")),
                (None, Some(entry)) => found.push(format!("{entry} in the second only")),
                (None, None) => {}
            }
        }
        if mine.len() > 1 || theirs.len() > 1 {
            let (mine, theirs) = (mine.len(), theirs.len());
            let count = format!("stands {mine} times in the first, {theirs} times in the second");
            found.extend((mine != theirs).then(|| format!("{} {count}", shown(name))));
        }
    }
    found
}

/// A name may stand more than once: the last one counts when it is unpacked.
fn by_name(entries: &[Entry]) -> BTreeMap<Vec<u8>, Vec<&Entry>> {
    let mut named: BTreeMap<Vec<u8>, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        named.entry(entry.name()).or_default().push(entry);
    }
    named
}

fn fields(one: &Entry, other: &Entry) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |field: &str, one: String, other: String| {
        if one != other {
            found.push(format!("{field}: {one} in the first, {other} in the second"));
        }
    };
    differ("kind", one.kind.to_string(), other.kind.to_string());
    differ("spelling", shown(&one.spelled), shown(&other.spelled));
    differ("mode", format!("{:04o}", one.mode), format!("{:04o}", other.mode));
    differ("uid", one.uid.to_string(), other.uid.to_string());
    differ("gid", one.gid.to_string(), other.gid.to_string());
    differ("owner", shown(&one.owner), shown(&other.owner));
    differ("group", shown(&one.group), shown(&other.group));
    differ("mtime", shown(one.mtime.as_bytes()), shown(other.mtime.as_bytes()));
    differ("link target", shown(&one.target), shown(&other.target));
    differ("device", format!("{:?}", one.device), format!("{:?}", other.device));
    let size =
        |content: &Option<Content>| content.as_ref().map_or("none".to_owned(), |content| content.size.to_string());
    differ("size", size(&one.content), size(&other.content));
    let digest = |content: &Option<Content>| content.as_ref().map_or("none", |content| &content.digest).to_owned();
    differ("content", digest(&one.content), digest(&other.content));
    let attributes: BTreeSet<&Vec<u8>> = one.attributes.keys().chain(other.attributes.keys()).collect();
    for name in attributes {
        let value = |entry: &Entry| entry.attributes.get(name).map_or("none".to_owned(), |value| shown(value));
        differ(&format!("attribute {}", shown(name)), value(one), value(other));
    }
    let name = shown(&one.name());
    found.into_iter().map(|difference| format!("{name} {difference}")).collect()
}

/// A whole entry on a line.
impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let name = self.name();
        let base = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        write!(formatter, "{} (", shown(&name))?;
        // OCI image-spec layer.md, "Whiteouts".
        match base {
            b".wh..wh..opq" => write!(formatter, "opaque whiteout")?,
            base if base.starts_with(b".wh.") => write!(formatter, "whiteout")?,
            _ => write!(formatter, "{}", self.kind)?,
        }
        write!(formatter, ", mode {:04o}, {}:{}", self.mode, self.uid, self.gid)?;
        if matches!(self.kind, Kind::HardLink | Kind::Symlink) {
            write!(formatter, ", to {}", shown(&self.target))?;
        }
        if let Some(content) = &self.content {
            write!(formatter, ", {} bytes, {}", content.size, content.digest)?;
        }
        for (name, value) in &self.attributes {
            write!(formatter, ", {}={}", shown(name), shown(value))?;
        }
        write!(formatter, ")")
    }
}

/// Text of an archive, without what a terminal would act on.
fn shown(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok("") => "none".to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => text.escape_ascii().to_string(),
    }
}
