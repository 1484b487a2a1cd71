//! Whether an export is whole, and the installation's: its files alone tell, and what they may hold is bounded, since they come from
//! somebody else.

use super::export_manifest::{CHECKPOINT, EXPORT, LOG_FILE, MANIFEST, Manifest, Part, SIGNED_MANIFEST};
use crate::audit::{Replay, StoredEntry, Verdict, format_timestamp};
use crate::ids::TenantId;
use crate::note::{self, Checkpoint, Verifier};
use crate::text::counted;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The longest manifest, and the longest checkpoint, in bytes.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// The longest line of a log, in bytes. The API's limits keep an entry far below it.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// In how many places the chain of a log may be broken or repaired: all of them are in memory, since a repair excuses breaks before it.
const BREAKS_MAX: usize = 100_000;

/// What is said of a file: that it is good, and how; or what is wrong with it.
type Said<'s> = Result<&'s str, &'s str>;

/// Looks at the export in this folder, and tells `say` of each file; of one with several faults, several times. An error is that of `say`.
pub fn verify_export<E>(
    folder: &Path,
    verifiers: &[Verifier],
    say: &mut impl FnMut(&str, Said<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(manifest) = open_manifest(folder, verifiers, say)? else { return Ok(()) };
    let checkpoint = open_checkpoint(folder, &manifest, verifiers);
    let mut log = Log::new(&manifest, checkpoint.as_ref().ok());
    for part in &manifest.files {
        let looked = look(folder, part, (part.name == LOG_FILE).then_some(&mut log));
        let said = match (looked, &checkpoint) {
            (Ok(()), Err(fault)) if part.name == CHECKPOINT => Err(fault.clone()),
            (looked, _) => looked.map(|()| {
                let rows = part.rows.map(|rows| counted(rows, "row", "rows") + ", ").unwrap_or_default();
                format!("{rows}{}", counted(part.bytes, "byte", "bytes"))
            }),
        };
        say(&part.name, said.as_deref().map_err(String::as_str))?;
    }
    log.end(checkpoint.as_ref().ok(), say)?;
    additional(folder, &manifest, say)
}

/// The manifest: as it was signed, if it was, or else as it is there.
fn open_manifest<E>(
    folder: &Path,
    verifiers: &[Verifier],
    say: &mut impl FnMut(&str, Said<'_>) -> Result<(), E>,
) -> Result<Option<Manifest>, E> {
    let (plain, note) = (read_text(&folder.join(MANIFEST)), read_text(&folder.join(SIGNED_MANIFEST)));
    let opened = match &note {
        Ok(note) => note::open_text(note, EXPORT, verifiers).map_err(|error| error.to_string()),
        Err(fault) if fault == MISSING => Err("is missing: nobody has signed this export".to_owned()),
        Err(fault) => Err(fault.clone()),
    };
    if let Err(fault) = &plain {
        say(MANIFEST, Err(fault))?;
    }
    let text = match (&plain, &opened) {
        (Ok(plain), Ok(signed)) if plain == signed => signed,
        (plain, Ok(signed)) => {
            if plain.is_ok() {
                say(MANIFEST, Err("is not the one that was signed"))?;
            }
            signed
        }
        (plain, Err(fault)) => {
            say(SIGNED_MANIFEST, Err(fault))?;
            let Ok(plain) = plain else { return Ok(None) };
            plain.as_str()
        }
    };
    let manifest: Manifest = match serde_json::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            say(MANIFEST, Err(&format!("is no manifest: line {line}, column {column} is not as in one")))?;
            return Ok(None);
        }
    };
    if opened.is_ok() {
        let Manifest { bulkhead, exported_at, tenant_id, external_id, .. } = &manifest;
        let at = format_timestamp(*exported_at);
        let text = format!("signed: {external_id} ({tenant_id}) at {at}, by build {bulkhead}");
        say(SIGNED_MANIFEST, Ok(&text))?;
    }
    Ok(Some(manifest))
}

fn open_checkpoint(folder: &Path, manifest: &Manifest, verifiers: &[Verifier]) -> Result<Checkpoint, String> {
    let text = read_text(&folder.join(CHECKPOINT))?;
    let checkpoint = note::open(&text, verifiers).map_err(|error| error.to_string())?;
    let is_of_tenant = checkpoint.log() == manifest.tenant_id.to_string();
    is_of_tenant.then_some(checkpoint).ok_or_else(|| "is of another tenant's log".to_owned())
}

const MISSING: &str = "is missing";

/// A regular file: one of another kind, such as a pipe, may never end. And its length.
fn open(path: &Path) -> Result<(File, u64), String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok((File::open(path).map_err(unreadable)?, metadata.len())),
        Ok(_) => Err("is not a file".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MISSING.to_owned()),
        Err(error) => Err(unreadable(error)),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let (file, length) = open(path)?;
    if length > TEXT_BYTES_MAX {
        return Err(format!("is longer than {TEXT_BYTES_MAX} bytes"));
    }
    let mut text = String::new();
    let read = file.take(TEXT_BYTES_MAX).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| format!("cannot be read: {error}"))
}

/// Compares a file with what the manifest says of it; its lines go to `log`, too, if it is that.
fn look(folder: &Path, part: &Part, log: Option<&mut Log>) -> Result<(), String> {
    if Path::new(&part.name).file_name().is_none_or(|name| *name != *part.name) {
        return Err("is named by the manifest, and would not be in this folder".to_owned());
    }
    let (file, length) = open(&folder.join(&part.name))?;
    if length != part.bytes {
        return Err(format!("has {} in place of {}", counted(length, "byte", "bytes"), part.bytes));
    }
    let mut hashed = Hashed { file, digest: Context::new(&SHA256) };
    let mut reader = BufReader::with_capacity(64 * 1024, &mut hashed);
    let read = match log {
        Some(log) => log.read(&mut reader).and_then(|()| io::copy(&mut reader, &mut io::sink())),
        None => io::copy(&mut reader, &mut io::sink()),
    };
    read.map_err(|error| format!("cannot be read: {error}"))?;
    let is_same = hex::encode(hashed.digest.finish()) == part.sha256;
    is_same.then_some(()).ok_or_else(|| "is not what was exported: its SHA-256 is another".to_owned())
}

/// A file, and the hash of what was read of it.
struct Hashed {
    file: File,
    digest: Context,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

/// The audit log of the export, as its lines come.
struct Log {
    tenant: TenantId,
    replay: Replay,
    lines: u64,
    /// Why the rest was not looked at.
    fault: Option<String>,
    /// Whether there is a file of the length that was exported.
    was_read: bool,
}

impl Log {
    fn new(manifest: &Manifest, checkpoint: Option<&Checkpoint>) -> Self {
        let sizes = checkpoint.map(|checkpoint| checkpoint.size);
        let replay = match &manifest.archived {
            Some(end) => Replay::behind(sizes, end.clone(), None),
            None => Replay::new(sizes),
        };
        Self { tenant: manifest.tenant_id, replay, lines: 0, fault: None, was_read: false }
    }

    /// Reads all lines, or those before the first that is no entry of this log.
    fn read(&mut self, source: &mut impl BufRead) -> io::Result<()> {
        self.was_read = true;
        let mut line = Vec::new();
        while self.fault.is_none() {
            line.clear();
            if source.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            self.lines += 1;
            self.fault = self.add(&line).err();
        }
        Ok(())
    }

    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let no_entry = || format!("line {} is no entry of an audit log", self.lines);
        let StoredEntry { entry, hash } = serde_json::from_slice(line).map_err(|_| no_entry())?;
        if entry.tenant_id != self.tenant {
            return Err(format!("line {} is of another tenant's log", self.lines));
        }
        self.replay.add(&entry, &hash).map_err(|_| no_entry())?;
        if self.replay.breaks() > BREAKS_MAX {
            return Err(format!("its chain is broken or repaired in more than {BREAKS_MAX} places"));
        }
        Ok(())
    }

    /// Says whether the chain holds, and whether it is that of the checkpoint.
    fn end<E>(
        self,
        checkpoint: Option<&Checkpoint>,
        say: &mut impl FnMut(&str, Said<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.was_read {
            return Ok(());
        }
        if let Some(fault) = &self.fault {
            return say(LOG_FILE, Err(fault));
        }
        let broken = self.replay.first_break(i64::MAX);
        match broken {
            Some(broken) => say(LOG_FILE, Err(&broken.to_string()))?,
            None => say(LOG_FILE, Ok(&format!("{} in a chain", counted(self.lines, "entry", "entries"))))?,
        }
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let size = counted(checkpoint.size, "entry", "entries");
        match self.replay.verdict(checkpoint) {
            Verdict::Fits => say(CHECKPOINT, Ok(&format!("of {size}: the entries are those that were signed"))),
            // The hash of the last of them is in the manifest.
            Verdict::Archived(last) => {
                let text =
                    format!("of {size}: entries 1 to {last} are archived, and only with them it could be compared");
                say(CHECKPOINT, Ok(&text))
            }
            Verdict::Changed(what) if broken == Some(&what) => Ok(()),
            misfit => say(LOG_FILE, Err(&format!("checkpoint of {size}: {misfit}"))),
        }
    }
}

/// Tells of each file that the manifest does not name.
fn additional<E>(
    folder: &Path,
    manifest: &Manifest,
    say: &mut impl FnMut(&str, Said<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let parts = manifest.files.iter().map(|part| part.name.as_str());
    let known: BTreeSet<&str> = parts.chain([MANIFEST, SIGNED_MANIFEST]).collect();
    let unreadable = |error: io::Error| format!("cannot be listed: {error}");
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return say(".", Err(&unreadable(error))),
    };
    for entry in entries {
        match entry {
            Ok(entry) => {
                let name = entry.file_name();
                if name.to_str().is_none_or(|name| !known.contains(name)) {
                    say(&name.to_string_lossy(), Err("is not in the manifest"))?;
                }
            }
            Err(error) => return say(".", Err(&unreadable(error))),
        }
    }
    Ok(())
}
