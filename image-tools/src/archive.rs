//! The outer archive: where its members lie in the file.

use crate::error::Exceeded;
use crate::tape::{Kind, Place, walk};
use crate::unpack::{Bounded, is_compressed, unpacked};
use crate::{Error, Limits};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An archive of `docker save` or `podman save`, opened.
#[derive(Debug)]
pub struct Archive {
    file: File,
    members: BTreeMap<String, Member>,
}

#[derive(Debug)]
enum Member {
    File(Place),
    Symlink(String),
    HardLink(String),
}

/// No archive of an engine has more links one after the other.
const LINKS_MAX: usize = 8;

impl Archive {
    pub(crate) fn open(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let what = path.display().to_string();
        let reading = |source| Error::reading(&what, source);
        let mut file = File::open(path).map_err(reading)?;
        if !file.metadata().map_err(reading)?.is_file() {
            return Err(Error::NotAnImage(format!("{what} is not a file")));
        }
        let mut start = [0; 4];
        let count = file.read_at(&mut start, 0).map_err(reading)?;
        if is_compressed(&start[..count]) {
            let mut whole = tempfile::tempfile().map_err(reading)?;
            let packed = unpacked(BufReader::new(file)).map_err(reading)?;
            io::copy(&mut Bounded::new(packed, limits.archive_bytes, limits.archive_bytes), &mut whole)
                .map_err(reading)?;
            file = whole;
        }
        let mut members = BTreeMap::new();
        let size = file.metadata().map_err(reading)?.len();
        let section = Section { file: &file, position: 0, left: size };
        walk(BufReader::new(section), limits, |entry, place, _| {
            let name = name(&entry.spelled)?;
            let target = || String::from_utf8(entry.target.clone()).map_err(io::Error::other);
            let member = match entry.kind {
                Kind::File => Member::File(place),
                Kind::Symlink => Member::Symlink(target()?),
                Kind::HardLink => Member::HardLink(target()?),
                // Folders, and what no engine reads.
                _ => return Ok(()),
            };
            // Some engines read the first, some the last.
            if members.insert(name.clone(), member).is_some() {
                return Err(io::Error::other(format!("it holds {name:?} twice")));
            }
            Ok(())
        })
        .map_err(|source| match Error::reading(&what, source) {
            Error::Unreadable { source, .. } => {
                Error::NotAnImage(format!("{what} is not an archive of an image: {source}"))
            }
            other => other,
        })?;
        Ok(Self { file, members })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The member as it is stored, by its name or through the links that lead to it.
    pub(crate) fn member(&self, name: &str) -> Result<BufReader<Section<'_>>, Error> {
        let mut current = normal(name, "")?;
        for _ in 0..LINKS_MAX {
            match self.members.get(&current) {
                Some(Member::File(place)) => {
                    let section = Section { file: &self.file, position: place.position, left: place.size };
                    return Ok(BufReader::new(section));
                }
                Some(Member::Symlink(target)) => {
                    let folder = current.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                    current = normal(target, &folder)?;
                }
                Some(Member::HardLink(target)) => current = normal(target, "")?,
                None => return Err(Error::NotAnImage(format!("the archive lacks {name:?}"))),
            }
        }
        Err(Error::NotAnImage(format!("the archive's links lead from {name:?} nowhere")))
    }

    /// A JSON document, as it stands and read.
    pub(crate) fn document(&self, name: &str, limits: &Limits) -> Result<(Vec<u8>, Value), Error> {
        let mut text = Vec::new();
        let bound = limits.document_bytes;
        self.member(name)?.take(bound + 1).read_to_end(&mut text).map_err(|source| Error::reading(name, source))?;
        if text.len() as u64 > bound {
            return Err(Error::reading(name, io::Error::other(Exceeded(format!("{bound} bytes")))));
        }
        let value =
            crate::document::parse(&text).map_err(|source| Error::Document { name: name.to_owned(), source })?;
        Ok((text, value))
    }
}

/// The name of a member. One that leads out of the archive is refused, though it is never used as a path here.
fn name(spelled: &[u8]) -> io::Result<String> {
    let text = std::str::from_utf8(spelled).map_err(io::Error::other)?;
    if text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(io::Error::other(format!("the name {text:?} leads out of it")));
    }
    normal(text, "").map_err(io::Error::other)
}

/// A name without `.` and `..`, taken from `folder`.
fn normal(path: &str, folder: &str) -> Result<String, Error> {
    let outside = || Error::NotAnImage(format!("{path:?} leads out of the archive"));
    if path.starts_with('/') {
        return Err(outside());
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// A part of a file. Any number of them may be read at once.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    file: &'a File,
    position: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
