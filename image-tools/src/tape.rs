//! The entries of a tar archive, read one after the other.

use crate::Limits;
use crate::error::Exceeded;
use crate::unpack::digest;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use tar::{EntryType, Header};

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A file with a content of its own.
    File,
    /// Another name of a file that stands before it.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Folder,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A header that holds attributes for all that follows; engines leave it out.
    GlobalHeader,
    /// Anything else, by the byte that stands for it.
    Other(u8),
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::File => "file",
            Self::HardLink => "hard link",
            Self::Symlink => "symlink",
            Self::Folder => "folder",
            Self::CharacterDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "fifo",
            Self::GlobalHeader => "global header",
            Self::Other(byte) => return write!(formatter, "type {byte:#04x}"),
        })
    }
}

/// Content of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// `sha256:...`
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// A file, link or folder, with all that an archive says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// As it stands in the archive.
    pub spelled: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions, with setuid, setgid and sticky; without the kind, which podman writes here as well.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// The owner's name, may be empty.
    pub owner: Vec<u8>,
    /// The group's name, may be empty.
    pub group: Vec<u8>,
    /// Seconds since 1970, with a fraction where a PAX record gives one.
    pub mtime: String,
    /// Where a link leads.
    pub target: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// PAX records that none of the fields above holds: extended attributes, other times.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of what has content.
    pub content: Option<Content>,
}

impl Entry {
    /// The name without `./` or `/` in front and `/` behind, by which entries are paired.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let parts = self.spelled.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        parts.collect::<Vec<_>>().join(&b'/')
    }
}

/// Where the content of an entry lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// From the start of the archive, in bytes.
    pub(crate) position: u64,
    /// In bytes.
    pub(crate) size: u64,
}

/// Goes through the entries of an archive: `visit` gets each, where its content lies, and its content, to be read or left. Returns what the reader has left after the mark at the archive's end.
///
/// # Errors
/// An archive that is broken, exceeds `limits`, or that readers understand differently; and what `visit` returns.
pub(crate) fn walk<R: Read>(
    source: R,
    limits: &Limits,
    mut visit: impl FnMut(Entry, Place, &mut dyn Read) -> io::Result<()>,
) -> io::Result<R> {
    let mut archive = tar::Archive::new(source);
    let mut budget = Budget { left: limits.metadata_bytes, bound: limits.metadata_bytes };
    let mut count = 0;
    let mut long = Extensions::default();
    // Raw: headers that extend the next one are read here, since the crate would read them whole, of whatever size.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        count += 1;
        if count > limits.entries {
            return Err(io::Error::other(Exceeded(format!("{} entries", limits.entries))));
        }
        let header = entry.header().clone();
        let size = header.entry_size()?;
        let kind = header.entry_type();
        let place = Place { position: entry.raw_file_position(), size };
        let extends = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extends {
            budget.spend(size)?;
            let mut value = Vec::new();
            if entry.read_to_end(&mut value)? as u64 != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if kind.is_pax_local_extensions() {
                long.records = budget.records(&value)?;
            } else if kind.is_pax_global_extensions() {
                let mut entry = long.entry(&header, Kind::GlobalHeader)?;
                long = Extensions::default();
                entry.attributes = budget.records(&value)?;
                visit(entry, place, &mut io::empty())?;
            } else {
                while value.last() == Some(&0) {
                    value.pop();
                }
                *(if kind.is_gnu_longname() { &mut long.name } else { &mut long.target }) = Some(value);
            }
            continue;
        }
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Directory => Kind::Folder,
            EntryType::Char => Kind::CharacterDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Fifo => Kind::Fifo,
            // Further headers may follow this one, in its content or not, which readers take differently.
            EntryType::GNUSparse => return Err(malformed("a sparse file, which cannot be listed")),
            other => Kind::Other(other.as_byte()),
        };
        // Go's reader takes these for empty whatever the size says (golang/go src/archive/tar/reader.go, isHeaderOnly).
        let has_content = matches!(kind, Kind::File | Kind::Other(_));
        if size > 0 && !has_content {
            return Err(malformed(&format!("a {kind} with a content")));
        }
        let extended_size = long.records.get(b"size".as_slice());
        if extended_size.is_some_and(|extended| extended.as_slice() != size.to_string().as_bytes()) {
            return Err(malformed("an entry with two sizes"));
        }
        let described = long.entry(&header, kind)?;
        long = Extensions::default();
        budget.spend((described.spelled.len() + described.target.len()) as u64)?;
        visit(described, place, &mut entry)?;
    }
    if long != Extensions::default() {
        return Err(malformed("a header that extends nothing"));
    }
    Ok(archive.into_inner())
}

/// What may still be held of names and attributes.
struct Budget {
    left: u64,
    bound: u64,
}

impl Budget {
    fn spend(&mut self, bytes: u64) -> io::Result<()> {
        let exceeded = || io::Error::other(Exceeded(format!("{} bytes of names and attributes", self.bound)));
        self.left = self.left.checked_sub(bytes).ok_or_else(exceeded)?;
        Ok(())
    }

    fn records(&mut self, text: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let records = records(text)?;
        // Each takes about this in memory besides its text.
        self.spend(64 * records.len() as u64)?;
        Ok(records)
    }
}

/// Lists the entries of a layer, and whether anything but zeros follows the mark at its end.
pub(crate) fn list(source: impl Read, limits: &Limits) -> io::Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    let mut rest = walk(source, limits, |mut entry, _, content| {
        if matches!(entry.kind, Kind::File | Kind::Other(_)) {
            let (digest, size) = digest(content)?;
            entry.content = Some(Content { digest, size });
        }
        entries.push(entry);
        Ok(())
    })?;
    let mut buffer = vec![0; 64 << 10];
    let mut trailing = false;
    loop {
        let count = rest.read(&mut buffer)?;
        if count == 0 {
            return Ok((entries, trailing));
        }
        trailing |= buffer[..count].iter().any(|byte| *byte != 0);
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// What headers before an entry say of it.
#[derive(Default, PartialEq)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extensions {
    fn entry(&mut self, header: &Header, kind: Kind) -> io::Result<Entry> {
        let name = self.records.remove(b"path".as_slice()).or_else(|| self.name.take());
        let target = self.records.remove(b"linkpath".as_slice()).or_else(|| self.target.take());
        self.records.remove(b"size".as_slice());
        let mut number = |record: &str, plain: io::Result<u64>| match self.records.remove(record.as_bytes()) {
            Some(value) => String::from_utf8_lossy(&value).parse().map_err(|_| malformed(record)),
            None => plain,
        };
        let (uid, gid) = (number("uid", header.uid())?, number("gid", header.gid())?);
        let mut text = |record: &str, plain: Option<&[u8]>| {
            self.records.remove(record.as_bytes()).unwrap_or_else(|| plain.unwrap_or_default().to_vec())
        };
        let (owner, group) = (text("uname", header.username_bytes()), text("gname", header.groupname_bytes()));
        let mtime = match self.records.remove(b"mtime".as_slice()) {
            Some(value) => String::from_utf8_lossy(&value).into_owned(),
            None => header.mtime()?.to_string(),
        };
        let device = match kind {
            Kind::CharacterDevice | Kind::BlockDevice => {
                (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))
            }
            _ => (0, 0),
        };
        Ok(Entry {
            spelled: name.unwrap_or_else(|| header.path_bytes().into_owned()),
            kind,
            mode: header.mode()? & 0o7777,
            uid,
            gid,
            owner,
            group,
            mtime,
            target: target.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            device,
            attributes: std::mem::take(&mut self.records),
            content: None,
        })
    }
}

/// The records of a PAX header, each `LENGTH NAME=VALUE\n`; the length counts the whole record (POSIX pax, "pax Extended
/// Header"). Values may hold any byte.
fn records(mut text: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !text.is_empty() {
        let parsed = text.iter().position(|byte| *byte == b' ').and_then(|space| {
            let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
            let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((length, &record[..equals], &record[equals + 1..]))
        });
        let (length, name, value) = parsed.ok_or_else(|| malformed("a PAX header that cannot be read"))?;
        if records.insert(name.to_vec(), value.to_vec()).is_some() {
            return Err(malformed("a PAX header that names a record twice"));
        }
        text = &text[length..];
    }
    Ok(records)
}
