//! `bulkhead evidence`: the packet that an auditor asks for.

use super::Failure;
use super::table::print_line;
use super::tenant::operate;
use crate::administration::collect_evidence;
use crate::config::Settings;
use crate::text::counted;
use crate::{server, telemetry};
use anyhow::anyhow;
use bulkhead_migrator::Migrations;
use clap::Args;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{Write, stderr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct Evidence {
    /// Write it to this file, which must not be there yet; else to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put this SBOM of the release into it (JSON)
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
}

impl Evidence {
    pub(super) fn run(self, migrations: Migrations) -> Result<(), Failure> {
        let (settings, shown) = Settings::read(&|name| std::env::var_os(name));
        let settings = settings?;
        telemetry::init(&settings, stderr);
        let sbom = self.sbom.as_deref().map(read_sbom).transpose()?;
        let runner = server::runner(&settings, migrations);
        let evidence =
            operate(&settings, async |connection| collect_evidence(&settings, shown, &runner, connection).await)?;
        let mut packet = serde_json::to_value(&evidence).map_err(|error| anyhow!(error))?;
        if let Some(sbom) = sbom {
            packet["sbom"] = sbom;
        }
        let text = serde_json::to_string_pretty(&packet).map_err(|error| anyhow!(error))?;
        match &self.output {
            Some(file) => write_new(file, &text)?,
            None => print_line(&text)?,
        }
        match evidence.faults() {
            0 => Ok(()),
            faults => {
                let said = counted(faults, "thing is", "things are");
                Err(Failure::Unfit(format!("{said} wrong: see `findings` and `audit_logs`")))
            }
        }
    }
}

fn read_sbom(file: &Path) -> Result<Value, Failure> {
    let refused = |error: String| Failure::Refused(format!("--sbom: {}: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| refused(format!("is no JSON: {error}")))
}

/// For its owner alone: it says who may do what.
fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written =
        opened.and_then(|mut opened| opened.write_all(format!("{text}\n").as_bytes()).and_then(|()| opened.sync_all()));
    written.map_err(|error| Failure::Refused(format!("--output: {}: {error}", file.display())))
}
