//! The command line: what each subcommand is called, and the few lines that lead into the rooms behind it.

// What a command is asked for goes to standard output, what went wrong to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use crate::config::{ConfigError, Environment, Settings};
use crate::server::{self, ServeError};
use crate::{database, telemetry};
use anyhow::anyhow;
use bulkhead_migration::{Changes, MigrationError, Runner, State};
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use tokio::runtime::Runtime;

mod healthcheck;

/// A multi-tenant HTTP API for health data.
///
/// Without a subcommand it does what `start` does. Settings come from environment variables;
/// `bulkhead config show` lists them.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, \
    3 schema not as expected, 4 migration lock not had in time";

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply pending migrations (unless MIGRATE_ON_START=false), then serve
    Start,
    /// Serve; readiness waits for a schema this build can work with
    Serve,
    /// Change or show the database schema
    #[command(subcommand)]
    Migrate(Migrate),
    /// Ask the server of this container whether it lives; exit 0 when it does
    Healthcheck(healthcheck::Healthcheck),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(Config),
    /// Print the OpenAPI document as JSON
    Openapi,
}

#[derive(Debug, Subcommand)]
enum Migrate {
    /// Apply pending migrations
    Up {
        /// Apply only the first N of them
        #[arg(short = 'n', long = "num", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        steps: Option<u32>,
    },
    /// Revert the newest migrations
    Down {
        /// How many
        #[arg(short = 'n', long = "num", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        #[command(flatten)]
        consent: Consent,
    },
    /// List the migrations of this build and which are applied
    Status {
        /// Exit 3 when one is pending
        #[arg(long)]
        exit_code: bool,
    },
    /// Drop every table, then apply all migrations
    Fresh(Consent),
    /// Revert all migrations, then apply them again
    Refresh(Consent),
    /// Revert all migrations
    Reset(Consent),
}

#[derive(Debug, Args)]
struct Consent {
    /// Go ahead in ENVIRONMENT=production
    #[arg(long = "i-know-this-destroys-data")]
    given: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Config {
    /// Report every mistake at once, by variable name
    Check,
    /// List every variable with its value and where it comes from; secrets as ***
    Show,
}

/// Why a command ended without having done its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    SchemaNotAsExpected(String),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Refused(_) => 2,
            Self::SchemaNotAsExpected(_) => 3,
            Self::Serve(ServeError::Prepare(server::PrepareError::Migration(MigrationError::LockTimeout {
                ..
            }))) => 4,
            Self::Serve(_) | Self::Other(_) => 1,
        }
    }
}

impl Cli {
    /// Runs the command and says how it ended; a failure is one line on standard error per thing to change.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let done = match self.command.unwrap_or(Command::Start) {
            Command::Start => start(true),
            Command::Serve => start(false),
            Command::Migrate(verb) => verb.run(),
            Command::Healthcheck(healthcheck) => healthcheck.run(),
            Command::Config(verb) => verb.run(),
            Command::Openapi => openapi(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::from(failure.exit_code())
            }
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|error| anyhow!("cannot start the runtime: {error}").into())
}

fn start(migrate: bool) -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    telemetry::init(&settings);
    let migrate = migrate && settings.migrate_on_start;
    Ok(runtime()?.block_on(server::run(settings, migrate))?)
}

fn openapi() -> Result<(), Failure> {
    let document = server::api_document().to_pretty_json().map_err(|error| anyhow!(error))?;
    println!("{document}");
    Ok(())
}

impl Config {
    fn run(self) -> Result<(), Failure> {
        let (settings, shown) = Settings::read(&|name| std::env::var_os(name));
        match self {
            Self::Check => {}
            Self::Show => {
                let width = shown.iter().map(|line| line.name.len()).max().unwrap_or_default();
                for line in shown {
                    println!("{:width$}  {}  ({})", line.name, line.value, line.source);
                }
            }
        }
        settings?;
        if matches!(self, Self::Check) {
            println!("the configuration is good");
        }
        Ok(())
    }
}

impl Migrate {
    fn run(self) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        if let Some((verb, consent)) = self.destructive()
            && settings.environment == Environment::Production
            && !consent.given
        {
            return Err(Failure::Refused(format!(
                "migrate {verb} destroys data and ENVIRONMENT=production: add --i-know-this-destroys-data to go ahead"
            )));
        }
        runtime()?.block_on(self.act(&settings))
    }

    fn destructive(&self) -> Option<(&'static str, &Consent)> {
        match self {
            Self::Up { .. } | Self::Status { .. } => None,
            Self::Down { consent, .. } => Some(("down", consent)),
            Self::Fresh(consent) => Some(("fresh", consent)),
            Self::Refresh(consent) => Some(("refresh", consent)),
            Self::Reset(consent) => Some(("reset", consent)),
        }
    }

    async fn act(&self, settings: &Settings) -> Result<(), Failure> {
        let changes = match self {
            Self::Status { exit_code } => return status(settings, *exit_code).await,
            Self::Up { steps } => server::migrate(settings, async |runner| runner.up(*steps).await).await,
            Self::Down { steps, .. } => server::migrate(settings, async |runner| runner.down(*steps).await).await,
            Self::Fresh(_) => server::migrate(settings, async |runner| runner.fresh().await).await,
            Self::Refresh(_) => server::migrate(settings, async |runner| runner.refresh().await).await,
            Self::Reset(_) => server::migrate(settings, async |runner| runner.reset().await).await,
        };
        print_changes(&changes.map_err(ServeError::from)?);
        Ok(())
    }
}

async fn status(settings: &Settings, exit_code: bool) -> Result<(), Failure> {
    let connection = database::migration_connection(settings);
    let steps = Runner::status(&connection).await.map_err(|error| {
        ServeError::from(server::unusable("MIGRATION_DATABASE_URL", &settings.migration_database, &error))
    })?;
    let mut pending = 0;
    for step in steps {
        let state = match step.state {
            State::Applied => "applied",
            State::Pending => {
                pending += 1;
                "pending"
            }
        };
        println!("{state}  {}", step.name);
    }
    if exit_code && pending > 0 {
        return Err(Failure::SchemaNotAsExpected(format!("{pending} migrations are pending: run bulkhead migrate up")));
    }
    Ok(())
}

fn print_changes(changes: &Changes) {
    for name in &changes.reverted {
        println!("reverted  {name}");
    }
    for name in &changes.applied {
        println!("applied  {name}");
    }
    if changes.reverted.is_empty() && changes.applied.is_empty() {
        println!("nothing to do");
    }
}
