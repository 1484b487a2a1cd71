//! Checkpoints of the audit log from the command line: makes them, prints the keys that verify them, and holds entries to them.

use super::Failure;
use super::table::print_line;
use crate::administration::{BACKUP, Checkpoints, EXPORT, TenantRow, make_checkpoints};
use crate::audit::{self, NotTaken, Replay, StoredEntry, Verdict, Webhook};
use crate::config::Settings;
use crate::ids::TenantId;
use crate::note::{self, Checkpoint, SigningKey, Verifier};
use crate::text::counted;
use anyhow::anyhow;
use backon::{ConstantBuilder, Retryable};
use clap::Args;
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest file of notes, in bytes.
const NOTES_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long the webhook is left alone before it is sent again what it has not taken.
const WEBHOOK_PAUSE: Duration = Duration::from_secs(1);

/// What to hold entries to.
#[derive(Debug, Args)]
pub(super) struct Since {
    /// Hold the entries to the checkpoints in these files, too: one or many in each; `-` is standard input
    #[arg(long = "since", id = "since", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// What verifies their signatures: keys as `audit key` prints them, or files of such; else that of AUDIT_SIGNING_KEY
    #[arg(long, value_name = "KEY_OR_FILE", requires = "since", num_args = 1..)]
    key: Vec<String>,
    /// Look at this file of `audit export` instead of a database
    #[arg(long, value_name = "FILE", requires_all = ["since", "key"], conflicts_with = "tenant")]
    entries: Option<PathBuf>,
}

/// Signed checkpoints, by log, and what was found wrong with their notes.
struct Notes {
    by_log: BTreeMap<String, Vec<Checkpoint>>,
    total: usize,
    unsigned: usize,
}

impl Since {
    /// The file to look at instead of a database.
    pub(super) fn offline(&self) -> Option<&Path> {
        self.entries.as_deref()
    }

    /// Reads all notes, and prints a line for each that nobody known has signed.
    fn notes(&self, key: Option<&SigningKey>) -> Result<Notes, Failure> {
        let mut verifiers = verifiers(&self.key)?;
        let mut notes = Notes { by_log: BTreeMap::new(), total: 0, unsigned: 0 };
        for path in &self.files {
            let failed =
                |error: io::Error| Failure::Refused(format!("--since: cannot read {}: {error}", path.display()));
            let text = if path == Path::new("-") {
                bounded(io::stdin().lock()).map_err(failed)?
            } else {
                File::open(path).and_then(bounded).map_err(failed)?
            };
            let found = note::split(&text);
            if found.is_empty() {
                return Err(Failure::Refused(format!("--since: there is no checkpoint in {}", path.display())));
            }
            for note in found {
                notes.total += 1;
                let unverified = note::read_unverified(&note);
                let ours = key.zip(unverified.as_ref()).filter(|(key, said)| key.origin(said.log()) == said.origin);
                if let Some((key, said)) = ours.filter(|_| self.key.is_empty()) {
                    let verifier = key.verifier(&said.origin);
                    if !verifiers.contains(&verifier) {
                        verifiers.push(verifier);
                    }
                }
                match note::open(&note, &verifiers) {
                    Ok(checkpoint) => {
                        notes.by_log.entry(checkpoint.log().to_owned()).or_default().push(checkpoint);
                    }
                    Err(error) => {
                        notes.unsigned += 1;
                        let of = unverified.map(|said| format!(" of {}, {} entries", said.origin, said.size));
                        let of = of.unwrap_or_default();
                        print_line(&format!("UNSIGNED {}: a checkpoint{of}: {error}", path.display()))?;
                    }
                }
            }
        }
        Ok(notes)
    }

    /// Holds the entries of these tenants to the checkpoints; of all tenants, where not one alone is `chosen`. What does not fit,
    /// as an error says it.
    pub(super) async fn verify(
        &self,
        settings: &Settings,
        connection: &DatabaseConnection,
        tenants: &[TenantRow],
        chosen: bool,
    ) -> Result<Result<Option<String>, Failure>, DbErr> {
        if self.files.is_empty() {
            return Ok(Ok(None));
        }
        let mut notes = match self.notes(settings.audit.signing_key.as_ref()) {
            Ok(notes) => notes,
            Err(failure) => return Ok(Err(failure)),
        };
        if chosen {
            let of_others = |log: &String| !tenants.iter().any(|tenant| tenant.id.to_string() == *log);
            let others: usize = notes.by_log.iter().filter(|(log, _)| of_others(log)).map(|(_, all)| all.len()).sum();
            notes.by_log.retain(|log, _| !of_others(log));
            notes.total -= others;
            if notes.total == 0 {
                return Ok(Err(Failure::Refused("--since: there is no checkpoint of this tenant".to_owned())));
            }
        }
        let mut misfits = notes.unsigned;
        for (log, checkpoints) in &notes.by_log {
            let Some(tenant) = tenants.iter().find(|tenant| tenant.id.to_string() == *log) else {
                for Checkpoint { size, .. } in checkpoints {
                    let line =
                        format!("ERASED  {log}: checkpoint of {}: there is no such tenant any more", entries(*size));
                    if let Err(failure) = print_line(&line) {
                        return Ok(Err(failure));
                    }
                }
                misfits += checkpoints.len();
                continue;
            };
            let replay = audit::replay(connection, tenant.id, checkpoints).await?;
            match say(&format!("{} ({})", tenant.external_id, tenant.id), &replay, checkpoints) {
                Ok(found) => misfits += found,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(misfit(misfits, notes.total)))
    }

    /// The same of a file that `audit export` wrote.
    pub(super) fn verify_file(&self, file: &Path) -> Result<(), Failure> {
        let notes = self.notes(None)?;
        let failed =
            |error: &dyn std::fmt::Display| Failure::Refused(format!("--entries: {}: {error}", file.display()));
        let lines = BufReader::new(File::open(file).map_err(|error| failed(&error))?).lines();
        let mut replays: BTreeMap<String, Replay> = BTreeMap::new();
        let sizes = |log: &str| {
            let checkpoints = notes.by_log.get(log).into_iter().flatten();
            Replay::new(checkpoints.map(|checkpoint| checkpoint.size))
        };
        for (line, number) in lines.zip(1..) {
            let line = line.map_err(|error| failed(&error))?;
            let at = |error: serde_json::Error| failed(&format!("line {number}: {error}"));
            let StoredEntry { entry, hash } = serde_json::from_str(&line).map_err(at)?;
            let log = entry.tenant_id.to_string();
            let replay = replays.entry(log).or_insert_with_key(|log| sizes(log));
            replay.add(&entry, &hash).map_err(at)?;
        }
        let (mut misfits, mut broken) = (notes.unsigned, 0);
        for (log, replay) in &replays {
            match replay.first_break(i64::MAX) {
                None => {
                    let count = entries(replay.last().unsigned_abs());
                    print_line(&format!("good    {log}: {count}, head {}", replay.head()))?;
                }
                Some(found) => {
                    broken += 1;
                    print_line(&format!("BROKEN  {log}: {found}"))?;
                }
            }
        }
        for (log, checkpoints) in &notes.by_log {
            let none = Replay::new([]);
            misfits += say(log, replays.get(log).unwrap_or(&none), checkpoints)?;
        }
        let logs = (broken > 0).then(|| not_holding(broken, replays.len()));
        match [logs, misfit(misfits, notes.total)].into_iter().flatten().reduce(|one, next| format!("{one}\n{next}")) {
            Some(error) => Err(anyhow!(error).into()),
            None => Ok(()),
        }
    }
}

/// The keys that `--key` names: keys themselves, or files with one in each line.
pub(super) fn verifiers(keys: &[String]) -> Result<Vec<Verifier>, Failure> {
    let mut verifiers = Vec::new();
    for text in keys {
        if let Ok(verifier) = text.parse() {
            verifiers.push(verifier);
            continue;
        }
        let lines = std::fs::read_to_string(text).map_err(|error| {
            Failure::Refused(format!("--key: {text} is no key, and no file that can be read: {error}"))
        })?;
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let verifier =
                line.parse().map_err(|error| Failure::Refused(format!("--key: {text}: {line:?} {error}")))?;
            verifiers.push(verifier);
        }
    }
    Ok(verifiers)
}

fn bounded(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(NOTES_BYTES_MAX + 1).read_to_string(&mut text)?;
    // A part of the notes would be taken for all of them.
    if text.len() as u64 > NOTES_BYTES_MAX {
        return Err(io::Error::other("it is longer than 64 MiB: give its checkpoints in several files"));
    }
    Ok(text)
}

fn entries(number: u64) -> String {
    counted(number, "entry", "entries")
}

/// How many chains are broken, as an error says it.
pub(super) fn not_holding(broken: usize, all: usize) -> String {
    let verb = if broken == 1 { "does" } else { "do" };
    format!("{broken} of {} {verb} not hold", counted(all, "audit log", "audit logs"))
}

fn misfit(misfits: usize, total: usize) -> Option<String> {
    let verb = if misfits == 1 { "does" } else { "do" };
    (misfits > 0).then(|| format!("{misfits} of {} {verb} not fit", counted(total, "checkpoint", "checkpoints")))
}

/// Prints a line for each checkpoint of a log; how many do not fit.
fn say(log: &str, replay: &Replay, checkpoints: &[Checkpoint]) -> Result<usize, Failure> {
    let verdicts: Vec<Verdict> = checkpoints.iter().map(|checkpoint| replay.verdict(checkpoint)).collect();
    // Nobody signs a checkpoint that contradicts one before it.
    let is_continued = |checkpoint: &Checkpoint| {
        let mut others = checkpoints.iter().zip(&verdicts);
        others.any(|(other, verdict)| other.size > checkpoint.size && *verdict == Verdict::Fits)
    };
    let mut misfits = 0;
    for (checkpoint, verdict) in checkpoints.iter().zip(&verdicts) {
        let word = match verdict {
            Verdict::Fits => "fits   ",
            Verdict::Cut { .. } => "CUT    ",
            Verdict::Rewritten { .. } => "REWRITTEN",
            Verdict::Changed(_) => "CHANGED",
            Verdict::Archived(_) => "ARCHIVED",
        };
        let fits = match verdict {
            Verdict::Fits => true,
            Verdict::Archived(_) => is_continued(checkpoint),
            Verdict::Cut { .. } | Verdict::Rewritten { .. } | Verdict::Changed(_) => false,
        };
        misfits += usize::from(!fits);
        print_line(&format!("{word} {log}: checkpoint of {}: {verdict}", entries(checkpoint.size)))?;
    }
    Ok(misfits)
}

fn key(settings: &Settings) -> Result<&SigningKey, Failure> {
    let missing = || Failure::Refused("AUDIT_SIGNING_KEY: is required for checkpoints".to_owned());
    settings.audit.signing_key.as_ref().ok_or_else(missing)
}

/// Makes a checkpoint of each tenant's log, prints it, and sends it to the webhook, where there is one.
pub(super) async fn make(
    settings: &Settings,
    connection: &DatabaseConnection,
    tenants: &[TenantRow],
) -> Result<Result<(), Failure>, DbErr> {
    let key = match key(settings) {
        Ok(key) => key,
        Err(failure) => return Ok(Err(failure)),
    };
    let Checkpoints { notes, refused: mut errors, archived } = make_checkpoints(connection, key, tenants).await?;
    for reason in archived {
        eprintln!("warning: no checkpoint of {reason}");
    }
    if let Err(failure) = notes.values().try_for_each(|note| print_line(note.trim_end())) {
        return Ok(Err(failure));
    }
    if let Some(url) = &settings.audit.webhook
        && let Err(error) = send(Webhook::new(url.clone()), notes).await
    {
        let lacks = |tenant: &&TenantRow| error.logs.contains(&tenant.id);
        errors.extend(tenants.iter().filter(lacks).map(|TenantRow { id, external_id }| {
            format!("AUDIT_CHECKPOINT_WEBHOOK: the checkpoint of {external_id} ({id}) was not taken: {error}")
        }));
    }
    Ok(if errors.is_empty() { Ok(()) } else { Err(anyhow!(errors.join("\n")).into()) })
}

/// Sends what was made, twice at most.
async fn send(webhook: Webhook, notes: BTreeMap<TenantId, String>) -> Result<(), NotTaken> {
    for (log, note) in notes {
        webhook.add(log, note);
    }
    let once_more = ConstantBuilder::default().with_delay(WEBHOOK_PAUSE).with_max_times(1);
    (|| webhook.send()).retry(once_more).await
}

/// Prints the key that verifies each tenant's checkpoints, the one that verifies exports, and, of the whole installation, the one that
/// verifies records of backups.
pub(super) fn print_keys(settings: &Settings, tenants: &[TenantRow], of_all: bool) -> Result<(), Failure> {
    let key = key(settings)?;
    let print = |origin: String| print_line(&key.verifier(&origin).to_string());
    tenants.iter().try_for_each(|tenant| print(key.origin(tenant.id)))?;
    print(key.origin(EXPORT))?;
    if of_all { print(key.origin(BACKUP)) } else { Ok(()) }
}
