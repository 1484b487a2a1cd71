//! The command line: what each subcommand is called, and the few lines that lead into the rooms behind it.

// What a command is asked for goes to standard output, what went wrong to standard error.
#![allow(clippy::print_stderr)]

use crate::config::{ConfigError, Environment, MigrateOnStart, Misspelt, Settings};
use crate::server::{self, ServeError, StartupError};
use crate::{invocation, telemetry};
use anyhow::anyhow;
use bulkhead_migrator::Migrations;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;
use tokio::runtime::Runtime;

mod audit;
mod backup;
mod checkpoints;
mod database;
mod dev_token;
mod doctor;
mod evidence;
mod healthcheck;
mod migrate;
mod openapi_3_0;
mod table;
mod tenant;
mod usage;
mod user;

use table::print_line;

/// A multi-tenant HTTP API for health data.
///
/// `bulkhead start` starts the server. Without a subcommand, that is what happens, too, unless the program is started at a
/// terminal: then it prints this help. Settings come from environment variables; `bulkhead config show` lists them.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, long_version = VERSION, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What `--version` prints: also the lock files of the build, so that an image without labels can name them.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nCargo.lock sha256:",
    env!("CARGO_LOCK_SHA256"),
    "\nflake.lock sha256:",
    env!("FLAKE_LOCK_SHA256"),
);

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, \
    3 schema not as expected, or `doctor` or `backup verify` found something wrong, 4 migration lock not had in time";

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply pending migrations (unless MIGRATE_ON_START says otherwise), then serve
    Start,
    /// Serve; readiness waits for a schema this build can work with
    Serve,
    /// Change or show the database schema
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Prepare a database for the API
    #[command(subcommand)]
    Database(database::Database),
    /// Ask the server of this container whether it lives; exit 0 when it does
    Healthcheck(healthcheck::Healthcheck),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(Config),
    /// Print the OpenAPI document as JSON
    Openapi {
        /// The version of OpenAPI that it is in: 3.0 for tools that do not know 3.1
        #[arg(long = "as", value_name = "VERSION", default_value = "3.1")]
        format: OpenApiVersion,
    },
    /// Make, list, suspend, resume, export and erase tenants, and verify exports
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// List a tenant's users, give them roles, bring deleted ones back
    #[command(subcommand)]
    User(user::User),
    /// Verify, sign, repair or export the audit log
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Record what a backup must have, and verify a restored copy
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Look at the settings, the database and the identity provider, and say what mends what is wrong; exit 3 where something is
    Doctor(doctor::Doctor),
    /// Write what an auditor asks for, as JSON: build, settings without secrets, schema, roles, rights, policies, audit logs; exit 3
    /// where something is wrong
    Evidence(evidence::Evidence),
    /// Print a token for local use; only where ENVIRONMENT=development
    DevToken(dev_token::DevToken),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OpenApiVersion {
    #[value(name = "3.0")]
    V3_0,
    #[value(name = "3.1")]
    V3_1,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Config {
    /// Report every mistake at once, by variable name
    Check,
    /// List every variable with its value and where it comes from; secrets as ***
    Show,
    /// Print the JSON Schema of the variables
    Schema,
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
    #[error("{0}")]
    Unfit(String),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Refused(_) => 2,
            Self::SchemaNotAsExpected(_) | Self::Unfit(_) => 3,
            Self::Startup(error) => error.exit_code(),
            Self::Serve(error) => error.exit_code(),
            Self::Other(_) => 1,
        }
    }
}

/// The whole command line, as `cli-docs` describes it to shells and to `man`.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command of this process and says how it ended; a failure is one line on standard error per thing to change.
///
/// `migrations` are those of this build.
#[must_use]
pub fn run(migrations: Migrations) -> ExitCode {
    hide_memory();
    let done = match Cli::try_parse() {
        Ok(Cli { command: Some(command) }) => command.run(migrations),
        Ok(Cli { command: None }) if may_be_a_question() => help(),
        Ok(Cli { command: None }) => Command::Start.run(migrations),
        Err(error) => return usage::report(&error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Has the system write no core dump of the process, and keep its memory from other processes of its user: secrets are in both.
/// Not in development, where debuggers are such processes (prctl(2), `PR_SET_DUMPABLE`).
fn hide_memory() {
    let environment = std::env::var_os("ENVIRONMENT").unwrap_or_default();
    if environment.is_empty() || environment == Environment::Development.to_string().as_str() {
        return;
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("a core dump would contain secrets: {error}");
    }
}

/// Whether the program's name alone may mean "what is this?": a start would migrate the database of the current folder.
/// Containers and services have no terminal at both ends, and whoever types `cargo run` knows the project.
fn may_be_a_question() -> bool {
    stdin().is_terminal() && stdout().is_terminal() && !invocation::by_cargo()
}

fn help() -> Result<(), Failure> {
    command().print_long_help().map_err(|error| anyhow!("cannot write to standard output: {error}"))?;
    print_line("\nTo start the server: bulkhead start")?;
    Ok(())
}

impl Command {
    fn run(self, migrations: Migrations) -> Result<(), Failure> {
        match self {
            Self::Start => start(migrations, None),
            Self::Serve => start(migrations, Some(MigrateOnStart::Verify)),
            Self::Migrate(verb) => verb.run(migrations),
            Self::Database(verb) => verb.run(migrations),
            Self::Healthcheck(healthcheck) => healthcheck.run(),
            Self::Config(verb) => verb.run(),
            Self::Openapi { format } => openapi(format),
            Self::Tenant(verb) => verb.run(),
            Self::User(verb) => verb.run(),
            Self::Audit(verb) => verb.run(),
            Self::Backup(verb) => verb.run(migrations),
            Self::Doctor(doctor) => doctor.run(migrations),
            Self::Evidence(evidence) => evidence.run(migrations),
            Self::DevToken(token) => token.run(),
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|error| anyhow!("cannot start the runtime: {error}").into())
}

fn start(migrations: Migrations, mode: Option<MigrateOnStart>) -> Result<(), Failure> {
    let mut settings = Settings::from_env()?;
    settings.migrate_on_start = mode.unwrap_or(settings.migrate_on_start);
    telemetry::init(&settings, stdout);
    telemetry::log_panics();
    for warning in warnings(&settings) {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let served = runtime.block_on(server::run(settings, migrations));
    // Where names do not resolve, a thread that looks one up would hold up the end for many seconds.
    runtime.shutdown_background();
    Ok(served?)
}

fn warnings(settings: &Settings) -> Vec<String> {
    [misspelt(), settings.warnings()].concat()
}

fn misspelt() -> Vec<String> {
    let misspelt = Settings::misspelt().into_iter();
    misspelt.map(|Misspelt { name, meant }| format!("{name} is set, and is no setting: is {meant} meant?")).collect()
}

fn openapi(format: OpenApiVersion) -> Result<(), Failure> {
    let document = server::api_document();
    let text = match format {
        OpenApiVersion::V3_0 => {
            let document = serde_json::to_value(document).map_err(|error| anyhow!(error))?;
            format!("{:#}", openapi_3_0::of(document))
        }
        OpenApiVersion::V3_1 => document.to_pretty_json().map_err(|error| anyhow!(error))?,
    };
    print_line(&text)?;
    Ok(())
}

impl Config {
    fn run(self) -> Result<(), Failure> {
        if matches!(self, Self::Schema) {
            return print_line(&format!("{:#}", Settings::schema()));
        }
        let (settings, shown) = Settings::read(&|name| std::env::var_os(name));
        match self {
            Self::Check | Self::Schema => {}
            Self::Show => {
                let width = shown.iter().map(|line| line.name.len()).max().unwrap_or_default();
                for line in shown {
                    print_line(&format!("{:width$}  {}  ({})", line.name, line.value, line.source))?;
                }
            }
        }
        for warning in settings.as_ref().map_or_else(|_| misspelt(), warnings) {
            eprintln!("warning: {warning}");
        }
        settings?;
        if matches!(self, Self::Check) {
            print_line("the configuration is good")?;
        }
        Ok(())
    }
}
