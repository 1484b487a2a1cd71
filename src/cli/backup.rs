//! `bulkhead backup`: records what a backup must have, and looks at a restored copy.

use super::checkpoints::verifiers;
use super::doctor::{fit, print_findings};
use super::table::print_line;
use super::tenant::operate;
use super::{Failure, runtime};
use crate::administration::{self, BACKUP, Given, verify_copy};
use crate::config::{ConfigError, Settings};
use crate::note;
use crate::{server, telemetry};
use anyhow::anyhow;
use bulkhead_migrator::Migrations;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::io::stderr;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Backup {
    /// Write down what the database holds, just before a backup of it begins; with AUDIT_SIGNING_KEY it is signed
    Record {
        /// Write to this file instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Look at a restored copy, without changing it, and say what is not as it should be; exit 3 where something is wrong
    ///
    /// Without --from, the copy is the database of MIGRATION_DATABASE_URL, else of DATABASE_URL.
    Verify(Verify),
    /// Print the JSON of a record or a report, where its signature holds
    Read {
        /// What `record --output` or `verify --report` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What verifies the signature: keys as `audit key` prints them, or files of such
        #[arg(long, value_name = "KEY_OR_FILE", required = true, num_args = 1..)]
        key: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The copy's URL; other users of this machine can read it while the command runs, so do not put a password here
    #[arg(long, value_name = "URL", conflicts_with = "from_file")]
    from: Option<String>,
    /// A file with the copy's URL
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Hold the copy to this file of `backup record`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write the report to this file, too: a line of JSON; with AUDIT_SIGNING_KEY a signed note
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report instead of lines for people
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(super) fn run(self, migrations: Migrations) -> Result<(), Failure> {
        match self {
            Self::Record { output } => record(migrations, output.as_deref()),
            Self::Verify(verify) => verify.run(migrations),
            Self::Read { file, key } => {
                let text = read(&file, "FILE")?;
                let opened = note::open_text(&text, BACKUP, &verifiers(&key)?);
                let content = opened.map_err(|error| anyhow!("{}: {error}", file.display()))?;
                print_line(content.trim_end())
            }
        }
    }
}

fn record(migrations: Migrations, output: Option<&Path>) -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    telemetry::init(&settings, stderr);
    let (runner, key) = (server::runner(&settings, migrations), settings.audit.signing_key.as_ref());
    let record = operate(&settings, async |connection| administration::make_record(connection, &runner, key).await)?;
    let record = record.map_err(|refused| anyhow!(refused.join("\n")))?;
    let text = signed(&settings, &record)?;
    match output {
        Some(file) => write(file, "--output", &text),
        None => print_line(text.trim_end()),
    }
}

impl Verify {
    fn run(self, migrations: Migrations) -> Result<(), Failure> {
        let settings = self.settings()?;
        telemetry::init(&settings, stderr);
        let given = self.record.as_ref().map(|file| {
            let text = read(file, "--record")?;
            Given::read(&text, settings.audit.signing_key.as_ref())
                .map_err(|error| Failure::Refused(format!("--record: {} is no record: {error}", file.display())))
        });
        let given = given.transpose()?;
        let runner = server::runner(&settings, migrations);
        let report = runtime()?.block_on(verify_copy(&settings, &runner, given.as_ref()));
        let text = signed(&settings, &report)?;
        if let Some(file) = &self.report {
            write(file, "--report", &text)?;
        }
        if self.json {
            print_line(text.trim_end())?;
        } else {
            print_findings(&report.findings)?;
        }
        fit(&report.findings)
    }

    /// The settings of the environment, and the copy as the database.
    fn settings(&self) -> Result<Settings, Failure> {
        let (variable, option, value) = match (&self.from, &self.from_file) {
            (Some(url), _) => ("DATABASE_URL", "--from", OsString::from(url)),
            (None, Some(file)) => ("DATABASE_URL_FILE", "--from-file", file.into()),
            (None, None) => return Ok(Settings::from_env()?),
        };
        let lookup = |name: &str| match name {
            _ if name == variable => Some(value.clone()),
            "DATABASE_URL" | "DATABASE_URL_FILE" | "MIGRATION_DATABASE_URL" | "MIGRATION_DATABASE_URL_FILE" => None,
            _ => std::env::var_os(name),
        };
        let named = |error: String| {
            let rest = error.strip_prefix("DATABASE_URL_FILE").or_else(|| error.strip_prefix("DATABASE_URL"));
            rest.map_or_else(|| error.clone(), |rest| format!("{option}{rest}"))
        };
        let read = Settings::read(&lookup).0;
        let mut settings = read.map_err(|ConfigError(errors)| ConfigError(errors.into_iter().map(named).collect()))?;
        settings.migration_database_variable = option;
        Ok(settings)
    }
}

/// A line of JSON; signed, where there is a key.
fn signed(settings: &Settings, content: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(content).map_err(|error| anyhow!(error))? + "\n";
    Ok(settings
        .audit
        .signing_key
        .as_ref()
        .map_or_else(|| text.clone(), |key| key.sign_text(&key.origin(BACKUP), &text)))
}

fn read(file: &Path, option: &str) -> Result<String, Failure> {
    let failed = |error| Failure::Refused(format!("{option}: cannot read {}: {error}", file.display()));
    fs::read_to_string(file).map_err(failed)
}

fn write(file: &Path, option: &str, text: &str) -> Result<(), Failure> {
    let failed = |error| anyhow!("{option}: cannot write {}: {error}", file.display()).into();
    fs::write(file, text).map_err(failed)
}
