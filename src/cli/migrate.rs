//! `bulkhead migrate`: the runner's verbs, on the connection that MIGRATION_DATABASE_URL names.

use super::{Failure, runtime};
use crate::config::{Environment, Settings};
use crate::database::Access;
use crate::lifecycle::Signals;
use crate::server::{PrepareError, ServeError, runner};
use crate::tenancy::Isolation;
use crate::{database, telemetry};
use anyhow::anyhow;
use bulkhead_migrator::{Changes, Fit, MigrationError, Migrations, Repair, Runner, Standing, State};
use clap::{ArgGroup, Args, Subcommand};
use std::io::{IsTerminal, Write};

#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply pending migrations
    Up {
        /// Apply only the first N of them
        #[arg(short = 'n', long = "num", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        steps: Option<u32>,
        #[command(flatten)]
        lenient: Lenient,
    },
    /// Revert the newest migrations
    Down {
        /// How many
        #[arg(short = 'n', long = "num", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        #[command(flatten)]
        consent: Consent,
    },
    /// List every migration and where it stands
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Exit 3 when one is pending
        #[arg(long)]
        exit_code: bool,
    },
    /// Print what `up` would run, in order, without running it
    Plan(Lenient),
    /// Exit 3, saying why, unless this build can serve with the schema as it is, and it keeps tenants apart
    Verify(Lenient),
    /// Record what is true of a migration that was interrupted outside a transaction
    #[command(group = ArgGroup::new("truth").required(true))]
    Repair {
        /// The migration's name
        name: String,
        /// Everything it does is done
        #[arg(long, group = "truth")]
        applied: bool,
        /// Nothing it does is left
        #[arg(long, group = "truth")]
        pending: bool,
    },
    /// Drop every table, then apply all migrations
    Fresh(Consent),
    /// Revert all migrations, then apply them again
    Refresh(Consent),
    /// Revert all migrations
    Reset(Consent),
}

#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Lenient {
    /// Go on although the database holds migrations that this build does not have
    #[arg(long)]
    allow_unknown: bool,
    /// Go on although a pending migration is older than one already applied
    #[arg(long)]
    allow_out_of_order: bool,
}

#[derive(Debug, Args)]
pub(super) struct Consent {
    /// Go ahead in ENVIRONMENT=production
    #[arg(long = "i-know-this-destroys-data")]
    in_production: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Migrate {
    pub(super) fn run(self, migrations: Migrations) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        telemetry::init(&settings, std::io::stderr);
        if let Some((verb, consent)) = self.destructive() {
            consent.check(verb, &settings)?;
        }
        let runner = runner(&settings, migrations).with(|options| {
            let Lenient { allow_unknown, allow_out_of_order } = self.lenient();
            options.leniency.unknown |= allow_unknown;
            options.leniency.out_of_order |= allow_out_of_order;
        });
        runtime()?.block_on(async {
            // As a container's first process it would not be stopped by a signal that it does not catch.
            let signals = Signals::install().map_err(ServeError::Signals)?;
            tokio::select! {
                done = self.act(&settings, &runner) => done,
                name = signals.first() => Err(anyhow!("stopped by {name}; what was in a transaction is rolled back").into()),
            }
        })
    }

    fn destructive(&self) -> Option<(&'static str, &Consent)> {
        match self {
            Self::Down { consent, .. } => Some(("down", consent)),
            Self::Fresh(consent) => Some(("fresh", consent)),
            Self::Refresh(consent) => Some(("refresh", consent)),
            Self::Reset(consent) => Some(("reset", consent)),
            _ => None,
        }
    }

    fn lenient(&self) -> Lenient {
        match self {
            Self::Up { lenient, .. } | Self::Plan(lenient) | Self::Verify(lenient) => *lenient,
            _ => Lenient::default(),
        }
    }

    async fn act(&self, settings: &Settings, runner: &Runner) -> Result<(), Failure> {
        let target = database::migration_target(settings);
        let number = |steps: u32| usize::try_from(steps).unwrap_or(usize::MAX);
        let changes = match self {
            Self::Up { steps, .. } => runner.up(&target, steps.map(number)).await,
            Self::Down { steps, .. } => runner.down(&target, number(*steps)).await,
            Self::Fresh(_) => runner.fresh(&target).await,
            Self::Refresh(_) => runner.refresh(&target).await,
            Self::Reset(_) => runner.reset(&target).await,
            Self::Repair { name, applied, .. } => {
                let truth = if *applied { Repair::Applied } else { Repair::Pending };
                let repaired = runner.repair(&target, name, truth).await;
                repaired.map_err(|error| failure(settings, error))?;
                println!("recorded as {}  {name}", if *applied { "applied" } else { "pending" });
                return Ok(());
            }
            Self::Status { json, exit_code } => return status(settings, runner, *json, *exit_code).await,
            Self::Plan(_) => return plan(settings, runner).await,
            Self::Verify(_) => return verify(settings, runner).await,
        };
        print_changes(&changes.map_err(|error| failure(settings, error))?);
        Ok(())
    }
}

impl Consent {
    /// Refuses in production without the flag; asks whoever sits at a terminal.
    fn check(&self, verb: &str, settings: &Settings) -> Result<(), Failure> {
        if settings.environment == Environment::Production && !self.in_production {
            return Err(Failure::Refused(format!(
                "migrate {verb} destroys data and ENVIRONMENT=production: add --i-know-this-destroys-data to go ahead"
            )));
        }
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        eprint!("migrate {verb} destroys data in {}. Go on? [y/N] ", settings.migration_database);
        let mut answer = String::new();
        let asked = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
        asked.map_err(|error| anyhow!("cannot ask: {error}; --yes goes on without asking"))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(anyhow!("nothing was changed").into()),
        }
    }
}

fn failure(settings: &Settings, error: MigrationError) -> Failure {
    ServeError::from(PrepareError::of_migration(settings, error)).into()
}

async fn state(settings: &Settings, runner: &Runner) -> Result<State, Failure> {
    let connection = database::migration_connection(settings);
    let state = runner.state(&connection).await.map_err(|error| failure(settings, error.into()))?;
    let _ = connection.close().await;
    Ok(state)
}

async fn status(settings: &Settings, runner: &Runner, json: bool, exit_code: bool) -> Result<(), Failure> {
    let state = state(settings, runner).await?;
    if json {
        let steps: Vec<_> = state
            .steps
            .iter()
            .map(|step| serde_json::json!({ "name": step.name, "state": step.standing.name() }))
            .collect();
        println!("{}", serde_json::Value::from(steps));
    } else {
        for step in &state.steps {
            println!("{:12}  {}", step.standing, step.name);
        }
    }
    let (pending, dirty) = (state.pending().len(), state.names(Standing::Dirty).len());
    if exit_code && pending + dirty > 0 {
        let line = format!("{pending} migrations are pending, {dirty} dirty: run bulkhead migrate up");
        return Err(Failure::SchemaNotAsExpected(line));
    }
    Ok(())
}

async fn plan(settings: &Settings, runner: &Runner) -> Result<(), Failure> {
    let connection = database::migration_connection(settings);
    let plan = runner.plan(&connection).await.map_err(|error| failure(settings, error))?;
    let _ = connection.close().await;
    if plan.is_empty() {
        println!("-- nothing to do");
    }
    for step in plan {
        let how = if step.transactional { "in a transaction" } else { "outside a transaction" };
        println!("-- {} ({how})", step.name);
        match step.sql {
            // Shown as it stands in the source, less the indentation that all of it shares.
            Some(sql) => println!("{}\n", unindent(&sql)),
            None => println!("-- only running it tells what it does\n"),
        }
    }
    Ok(())
}

fn unindent(sql: &str) -> String {
    let lines: Vec<&str> = sql.lines().map(str::trim_end).skip_while(|line| line.is_empty()).collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let shared = lines.iter().filter(|line| !line.is_empty()).map(indent).min().unwrap_or_default();
    let lines: Vec<&str> = lines.iter().map(|line| line.get(shared..).unwrap_or_default()).collect();
    lines.join("\n").trim_end().to_owned()
}

async fn verify(settings: &Settings, runner: &Runner) -> Result<(), Failure> {
    let connection = database::migration_connection(settings);
    let fit = runner.verify(&connection).await.map_err(|error| failure(settings, error))?;
    let isolation =
        Isolation::look(&connection, Access::Operate).await.map_err(|error| failure(settings, error.into()))?;
    let _ = connection.close().await;
    if let Isolation::NotEnforced(faults) = isolation {
        return Err(Failure::SchemaNotAsExpected(format!(
            "the database does not keep tenants apart (SYS_007):\n  {}",
            faults.join("\n  ")
        )));
    }
    match fit {
        Fit::Exact => println!("the schema is the one this build was made for"),
        Fit::Ahead(names) => println!("this build can serve; the schema is ahead of it: {}", names.join(", ")),
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
