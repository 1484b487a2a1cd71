//! The program that `sea-orm-cli migrate` runs. It runs `bulkhead migrate`, which takes the lock, compares checksums, and
//! asks before it destroys data.
//!
//! sea-orm-cli runs `cargo run --manifest-path migration/Cargo.toml -- VERB`, with `-n`, `-u`, `-s` and `-v` where they are
//! given (SeaQL/sea-orm, sea-orm-cli/src/commands/migrate.rs).

#![allow(clippy::print_stderr)]

use clap::Parser;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Runs `bulkhead migrate` for sea-orm-cli
#[derive(Debug, Parser)]
struct Cli {
    /// `up`, `down`, `status`, `fresh`, `refresh`, `reset`, or another verb of `bulkhead migrate`
    #[arg(default_value = "up")]
    verb: String,
    /// How many migrations
    #[arg(short = 'n', long = "num")]
    steps: Option<String>,
    /// The database; `DATABASE_URL` and `MIGRATION_DATABASE_URL` by default
    #[arg(short = 'u', long)]
    database_url: Option<String>,
    /// Refused: name it in the URL, as `?options=-csearch_path%3DSCHEMA`
    #[arg(short = 's', long)]
    database_schema: Option<String>,
    /// Log more
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // sea-orm-cli always passes this on from the environment, and `public` is the default.
    if let Some(schema) = cli.database_schema.filter(|schema| schema != "public") {
        eprintln!("--database-schema: name {schema} in the URL, as ?options=-csearch_path%3D{schema}");
        return ExitCode::from(2);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
    command.args(["--bin", "bulkhead", "--", "migrate", &cli.verb]);
    if let Some(steps) = cli.steps {
        command.args(["-n", &steps]);
    }
    if let Some(url) = cli.database_url {
        command.env("DATABASE_URL", &url).env("MIGRATION_DATABASE_URL", url);
    }
    if cli.verbose {
        command.env("LOG_LEVEL", "debug");
    }
    // `exec` returns only when it fails.
    eprintln!("cannot run cargo: {}", command.exec());
    ExitCode::FAILURE
}
