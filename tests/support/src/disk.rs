//! A disk as a test wants it, for a SQLite database: it is slow, or fails, or loses what was not synced when the power is cut.
//!
//! It is a library that is preloaded into the process (`disk.c`), so it needs Linux, a C compiler, and a program that is linked with
//! the system's C library.

use crate::{Database, skip};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SOURCE: &str = include_str!("disk.c");

/// The bytes that a disk writes as a whole, or not at all.
const SECTOR: usize = 512;

/// A disk of one database.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    /// The database's file.
    file: String,
    /// The file and its log before anything was recorded.
    before: [Vec<u8>; 2],
}

/// What happened to the disk, in order.
#[derive(Debug)]
enum Event {
    Write { file: usize, at: usize, bytes: Vec<u8> },
    Truncate { file: usize, to: usize },
    SyncBegins { id: u64 },
    SyncEnds { file: usize, id: u64 },
}

/// All that happened.
#[derive(Debug)]
pub struct Record {
    before: [Vec<u8>; 2],
    /// With the size of the record behind each.
    events: Vec<(usize, Event)>,
}

impl Disk {
    /// The disk of a SQLite database that no process has open; `None`, with a loud skip, where the machine lacks something.
    ///
    /// # Panics
    /// When the library cannot be compiled, or the database not be read.
    #[must_use]
    pub fn of(database: &Database) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            skip("no Linux: libraries are not preloaded by LD_PRELOAD");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = folder.path().join("disk.c");
        fs::write(&source, SOURCE).expect("the file is written");
        let library = folder.path().join("disk.so");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
        let Ok(compiled) = compiled else {
            skip("no cc: disks that fail");
            return None;
        };
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let file = database.file().to_owned();
        let before = [fs::read(&file).expect("the database"), fs::read(format!("{file}-wal")).unwrap_or_default()];
        Some(Self { folder, file, before })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What to set in the environment of the process whose disk it is, where a sync takes as long.
    #[must_use]
    pub fn environment(&self, sync: Duration) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.path("disk.so")),
            ("DISK_OF", self.file.clone()),
            ("DISK_RECORD", self.path("record")),
            ("DISK_FAILS", self.path("fails")),
            ("DISK_SYNC_MS", sync.as_millis().to_string()),
        ]
    }

    /// Has writes and syncs fail, or not any more.
    ///
    /// # Panics
    /// When its file cannot be made or removed.
    pub fn fail(&self, fails: bool) {
        let file = self.path("fails");
        if fails { fs::write(file, "") } else { fs::remove_file(file) }.expect("the file is there, or not");
    }

    /// How much was recorded until now.
    #[must_use]
    pub fn recorded(&self) -> usize {
        fs::metadata(self.path("record")).map_or(0, |file| file.len().try_into().unwrap_or(usize::MAX))
    }

    /// What was recorded.
    ///
    /// # Panics
    /// When there is no record.
    #[must_use]
    pub fn record(&self) -> Record {
        let record = fs::read(self.path("record")).expect("a record");
        let (mut at, mut events) = (0, Vec::new());
        while let Some(head) = record.get(at..at + 32) {
            let number = |index: usize| u64::from_ne_bytes(head[8 * index..8 * index + 8].try_into().expect("8 bytes"));
            let size = |index: usize| usize::try_from(number(index)).expect("a size");
            let (file, length) = (size(1), size(3));
            at += 32;
            let event = match u8::try_from(number(0)).expect("a kind") {
                b'w' => {
                    // The end of what was being added when the process was killed may be missing.
                    let Some(bytes) = record.get(at..at + length) else { break };
                    at += length;
                    Event::Write { file, at: size(2), bytes: bytes.to_vec() }
                }
                b't' => Event::Truncate { file, to: length },
                b'b' => Event::SyncBegins { id: number(2) },
                _ => Event::SyncEnds { file, id: number(2) },
            };
            events.push((at, event));
        }
        Record { before: self.before.clone(), events }
    }
}

/// What is on the way to a disk.
enum Pending<'r> {
    Write { at: usize, bytes: &'r [u8] },
    Truncate(usize),
}

impl Pending<'_> {
    fn reach(&self, file: &mut Vec<u8>) {
        match *self {
            Self::Write { at, bytes } => {
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(to) => file.resize(to, 0),
        }
    }
}

impl Record {
    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The size of the record when so many events had happened.
    #[must_use]
    pub fn size_at(&self, events: usize) -> usize {
        events.checked_sub(1).map_or(0, |last| self.events[last].0)
    }

    /// When the database's own file was synced, in events: its log was copied into it before.
    #[must_use]
    pub fn copied(&self) -> Vec<usize> {
        let synced = |(_, event): &(usize, Event)| matches!(event, Event::SyncEnds { file: 0, .. });
        (0..self.events.len()).filter(|at| synced(&self.events[*at])).collect()
    }

    /// Writes the database and its log as a cut of the power leaves them that comes when so many events had happened. What was synced
    /// is there. Of what was written since, `chance` says of each sector whether it is.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn cut(&self, events: usize, to: &Path, mut chance: impl FnMut() -> bool) {
        let mut files = self.before.clone();
        let mut pending: [Vec<(usize, Pending<'_>)>; 2] = Default::default();
        let mut begun = Vec::new();
        for (number, (_, event)) in self.events[..events].iter().enumerate() {
            match event {
                Event::Write { file, at, bytes } => pending[*file].push((number, Pending::Write { at: *at, bytes })),
                Event::Truncate { file, to } => pending[*file].push((number, Pending::Truncate(*to))),
                Event::SyncBegins { id } => begun.push((*id, number)),
                Event::SyncEnds { file, id } => {
                    let begun = begun.iter().find(|(begun, _)| begun == id).expect("it has begun").1;
                    pending[*file].retain(|(number, write)| {
                        let synced = *number < begun;
                        if synced {
                            write.reach(&mut files[*file]);
                        }
                        !synced
                    });
                }
            }
        }
        for (file, pending) in files.iter_mut().zip(&pending) {
            for (_, write) in pending {
                match *write {
                    Pending::Write { at, bytes } => {
                        let (mut at, mut rest) = (at, bytes);
                        while !rest.is_empty() {
                            let (bytes, more) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                            if chance() {
                                Pending::Write { at, bytes }.reach(file);
                            }
                            (at, rest) = (at + bytes.len(), more);
                        }
                    }
                    Pending::Truncate(_) if chance() => write.reach(file),
                    Pending::Truncate(_) => {}
                }
            }
        }
        let [file, log] = files;
        fs::write(to, file).expect("the file is written");
        fs::write(format!("{}-wal", to.display()), log).expect("the file is written");
    }
}
