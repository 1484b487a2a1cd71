//! `bulkhead doctor`: says what is wrong and what is risky, and what mends it.

use super::table::{print_json, print_line};
use super::{Failure, runtime};
use crate::administration::{Finding, Verdict, examine};
use crate::config::Settings;
use crate::text::counted;
use crate::{server, telemetry};
use bulkhead_migrator::Migrations;
use clap::Args;
use std::io::stderr;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self, migrations: Migrations) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        telemetry::init(&settings, stderr);
        let runner = server::runner(&settings, migrations);
        let findings = runtime()?.block_on(examine(&settings, &runner));
        if self.json {
            print_json(&findings)?;
        } else {
            print_findings(&findings)?;
        }
        fit(&findings)
    }
}

/// Prints a line for each, and one that says what mends it.
pub(super) fn print_findings(findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        print_line(&format!("{:5}  {}: {}", finding.verdict, finding.about, finding.text))?;
        if let Some(mend) = &finding.mend {
            print_line(&format!("       -> {mend}"))?;
        }
    }
    Ok(())
}

/// Fails where something is wrong.
pub(super) fn fit(findings: &[Finding]) -> Result<(), Failure> {
    let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
    if wrong == 0 { Ok(()) } else { Err(Failure::Unfit(format!("{} wrong", counted(wrong, "thing is", "things are")))) }
}
