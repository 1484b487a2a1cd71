//! `bulkhead migrate` runs the migrator's commands on the connection that MIGRATION_DATABASE_URL names.

use super::table::print_line;
use super::usage::one_or_more;
use super::{Failure, runtime};
use crate::config::{Environment, Settings};
use crate::database::Access;
use crate::lifecycle::Signals;
use crate::server::{ServeError, StartupError, runner};
use crate::tenancy::Isolation;
use crate::text::counted;
use crate::{database, telemetry};
use anyhow::anyhow;
use bulkhead_migrator::{
    Changes, Compatibility, MigrationError, MigrationStatus, Migrations, Mode, Planned, Repair, Runner, TableLock,
};
use clap::{ArgGroup, Args, Subcommand};
use sea_orm::DatabaseConnection;
use std::io::{IsTerminal, Write};

#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply pending migrations
    Up {
        /// Apply only the first N of them
        #[arg(short = 'n', long = "num", value_name = "N", value_parser = one_or_more)]
        steps: Option<u32>,
        #[command(flatten)]
        allow: AllowFlags,
    },
    /// Revert the newest migrations
    Down {
        /// How many
        #[arg(short = 'n', long = "num", value_name = "N", default_value_t = 1, value_parser = one_or_more)]
        steps: u32,
        #[command(flatten)]
        confirm: ConfirmFlags,
    },
    /// List every migration and its status
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Exit 3 when one is pending
        #[arg(long)]
        exit_code: bool,
    },
    /// Print what `up` would run, in order, without running it
    Plan(AllowFlags),
    /// Exit 3, saying why, unless this build can serve with the schema as it is, and it keeps tenants apart
    Verify(AllowFlags),
    /// Record what you found out about a migration that was interrupted outside a transaction
    #[command(group = ArgGroup::new("outcome").required(true))]
    Repair {
        /// The migration's name
        name: String,
        /// Everything it does is done
        #[arg(long, group = "outcome")]
        applied: bool,
        /// Nothing it does is left
        #[arg(long, group = "outcome")]
        pending: bool,
    },
    /// Drop every table, then apply all migrations
    Fresh(ConfirmFlags),
    /// Revert all migrations, then apply them again
    Refresh(ConfirmFlags),
    /// Revert all migrations
    Reset(ConfirmFlags),
}

#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct AllowFlags {
    /// Go on although the database holds migrations that this build does not have
    #[arg(long)]
    allow_unknown: bool,
    /// Go on although a pending migration is older than one already applied
    #[arg(long)]
    allow_out_of_order: bool,
}

#[derive(Debug, Args)]
pub(super) struct ConfirmFlags {
    /// Go ahead in ENVIRONMENT=production
    #[arg(long = "i-know-this-destroys-data")]
    in_production: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Migrate {
    /// `migrate up` without arguments.
    pub(super) fn up() -> Self {
        Self::Up { steps: None, allow: AllowFlags::default() }
    }

    pub(super) fn run(self, migrations: Migrations) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        telemetry::init(&settings, std::io::stderr);
        if let Some((verb, confirm)) = self.destructive() {
            confirm.check(verb, &settings)?;
        }
        let runner = runner(&settings, migrations).with(|options| {
            let AllowFlags { allow_unknown, allow_out_of_order } = self.allow();
            options.allow.unknown |= allow_unknown;
            options.allow.out_of_order |= allow_out_of_order;
        });
        runtime()?.block_on(async {
            // A container's first process ignores signals that it does not catch.
            let signals = Signals::install().map_err(ServeError::Signals)?;
            tokio::select! {
                done = self.execute(&settings, &runner) => done,
                name = signals.first() => Err(anyhow!("stopped by {name}; what was in a transaction is rolled back").into()),
            }
        })
    }

    fn destructive(&self) -> Option<(&'static str, &ConfirmFlags)> {
        match self {
            Self::Down { confirm, .. } => Some(("down", confirm)),
            Self::Fresh(confirm) => Some(("fresh", confirm)),
            Self::Refresh(confirm) => Some(("refresh", confirm)),
            Self::Reset(confirm) => Some(("reset", confirm)),
            _ => None,
        }
    }

    fn allow(&self) -> AllowFlags {
        match self {
            Self::Up { allow, .. } | Self::Plan(allow) | Self::Verify(allow) => *allow,
            _ => AllowFlags::default(),
        }
    }

    async fn execute(&self, settings: &Settings, runner: &Runner) -> Result<(), Failure> {
        let target = database::migration_target(settings);
        let number = |steps: u32| usize::try_from(steps).unwrap_or(usize::MAX);
        let changes = match self {
            Self::Up { steps, .. } => runner.up(&target, steps.map(number)).await,
            Self::Down { steps, .. } => runner.down(&target, number(*steps)).await,
            Self::Fresh(_) => runner.fresh(&target).await,
            Self::Refresh(_) => runner.refresh(&target).await,
            Self::Reset(_) => runner.reset(&target).await,
            Self::Repair { name, applied, .. } => {
                let (outcome, word) =
                    if *applied { (Repair::Applied, "applied") } else { (Repair::Pending, "pending") };
                let repaired = runner.repair(&target, name, outcome).await;
                repaired.map_err(|error| StartupError::from_migration(settings, error))?;
                print_line(&format!("recorded as {word}  {name}"))?;
                return Ok(());
            }
            Self::Status { json, exit_code } => return status(settings, runner, *json, *exit_code).await,
            Self::Plan(_) => return plan(settings, runner).await,
            Self::Verify(_) => return verify(settings, runner).await,
        };
        print_changes(&changes.map_err(|error| StartupError::from_migration(settings, error))?)
    }
}

impl ConfirmFlags {
    /// Refuses in production without the flag; asks at a terminal.
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

/// Reads where migrations run.
async fn read<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&DatabaseConnection) -> Result<T, MigrationError>,
) -> Result<T, StartupError> {
    let outcome = async {
        let connection = database::migration_connection(settings).await?;
        let outcome = work(&connection).await;
        let _ = connection.close().await;
        outcome
    };
    outcome.await.map_err(|error| StartupError::from_migration(settings, error))
}

async fn status(settings: &Settings, runner: &Runner, json: bool, exit_code: bool) -> Result<(), Failure> {
    let state = read(settings, async |connection| Ok(runner.state(connection).await?)).await?;
    if json {
        let object = |name: &str, status: MigrationStatus| serde_json::json!({ "name": name, "state": status.name() });
        let list: Vec<_> = state.migrations.iter().map(|info| object(&info.name, info.status)).collect();
        print_line(&serde_json::Value::from(list).to_string())?;
    } else {
        for info in &state.migrations {
            print_line(&format!("{:12}  {}", info.status, info.name))?;
        }
    }
    let (pending, dirty) = (state.pending().len(), state.names(MigrationStatus::Dirty).len());
    if exit_code && pending + dirty > 0 {
        return Err(Failure::SchemaNotAsExpected(not_applied(pending, dirty)));
    }
    Ok(())
}

fn not_applied(pending: usize, dirty: usize) -> String {
    let of_pending = counted(pending, "migration is pending", "migrations are pending");
    let of_dirty = counted(dirty, "migration is dirty", "migrations are dirty");
    match (pending, dirty) {
        (_, 0) => format!("{of_pending}: run bulkhead migrate up"),
        (0, _) => format!("{of_dirty}: look at the schema, then run bulkhead migrate repair"),
        _ => format!("{of_pending}, {of_dirty}: look at the schema, then run bulkhead migrate repair"),
    }
}

async fn plan(settings: &Settings, runner: &Runner) -> Result<(), Failure> {
    let plan = read(settings, async |connection| runner.plan(connection).await).await?;
    if plan.is_empty() {
        print_line("-- nothing to do")?;
    }
    for migration in plan {
        let how = match migration.mode {
            Mode::Transaction => "in a transaction",
            Mode::Backfill(_) => "in batches, until it changes no row",
            Mode::NonTransactional | Mode::ConcurrentIndex(_) => "outside a transaction",
        };
        print_line(&format!("-- {} ({how})", migration.name))?;
        if migration.locks.is_none() {
            print_line("-- locks: not measured")?;
        }
        print_line(&format!("{}\n", unindent(&with_locks(&migration))))?;
    }
    Ok(())
}

/// The SQL, with the locks that a statement takes above it.
fn with_locks(migration: &Planned) -> String {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(migration.sql.lines()) {
        for lock in migration.locks.iter().flatten().filter(|lock| lock.line == number) {
            let indent = &line[..line.len() - line.trim_start().len()];
            let (TableLock { table, mode, size, .. }, blocks) = (lock, lock.mode.blocks());
            lines.push(format!("{indent}-- locks {table} ({size}) in {mode} mode: blocks {blocks}"));
        }
        lines.push(line.to_owned());
    }
    lines.join("\n")
}

/// The SQL as it stands in the source, without the indentation that all lines share.
fn unindent(sql: &str) -> String {
    let lines: Vec<&str> = sql.lines().map(str::trim_end).skip_while(|line| line.is_empty()).collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let shared = lines.iter().filter(|line| !line.is_empty()).map(indent).min().unwrap_or_default();
    let lines: Vec<&str> = lines.iter().map(|line| line.get(shared..).unwrap_or_default()).collect();
    lines.join("\n").trim_end().to_owned()
}

async fn verify(settings: &Settings, runner: &Runner) -> Result<(), Failure> {
    let (compatibility, isolation) = read(settings, async |connection| {
        let compatibility = runner.check(&runner.state(connection).await?)?;
        Ok((compatibility, Isolation::look(connection, Access::Operate).await?))
    })
    .await?;
    if let Isolation::NotEnforced(faults) = isolation {
        return Err(Failure::SchemaNotAsExpected(format!(
            "the database does not keep tenants apart (SYS_007):\n  {}",
            faults.join("\n  ")
        )));
    }
    match compatibility {
        Compatibility::Exact => print_line("the schema is the one this build was made for")?,
        Compatibility::Ahead(names) => {
            print_line(&format!("this build can serve; the schema is ahead of it: {}", names.join(", ")))?;
        }
    }
    Ok(())
}

fn print_changes(changes: &Changes) -> Result<(), Failure> {
    for name in &changes.reverted {
        print_line(&format!("reverted  {name}"))?;
    }
    for name in &changes.applied {
        print_line(&format!("applied  {name}"))?;
    }
    if changes.reverted.is_empty() && changes.applied.is_empty() {
        print_line("nothing to do")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::not_applied;

    #[test]
    fn counts_have_their_grammar() {
        assert_eq!(not_applied(1, 0), "1 migration is pending: run bulkhead migrate up");
        assert_eq!(not_applied(2, 0), "2 migrations are pending: run bulkhead migrate up");
        assert!(not_applied(0, 1).starts_with("1 migration is dirty: "));
        assert!(not_applied(3, 2).starts_with("3 migrations are pending, 2 migrations are dirty: "));
    }
}
