//! Runs migrations so that any number of processes may try at once.

mod postgres;
mod sqlite;

use crate::catalogue::{DescribedMigration, Migrations};
use crate::error::{Left, MigrationError, is_not_permitted};
use crate::history;
use crate::state::{Leniency, Standing, State, Step};
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm_migration::sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm_migration::sea_orm::{DatabaseConnection, DbBackend};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often a migration that still runs says so.
const REPORT: Duration = Duration::from_secs(10);

/// The database that migrations change, reached directly and with the right to change the schema.
#[derive(Clone)]
pub enum Target {
    /// PostgreSQL 12 or newer.
    Postgres(Box<PgConnectOptions>),
    /// A SQLite file.
    Sqlite(Box<SqliteConnectOptions>),
}

impl fmt::Debug for Target {
    /// Without what is secret in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres(_) => "Postgres",
            Self::Sqlite(_) => "Sqlite",
        })
    }
}

/// How patient, and how strict, a runner is.
#[derive(Clone)]
pub struct Options {
    /// How long to wait for another process's run to end.
    pub lock_timeout: Duration,
    /// How long one statement may wait for a table's lock before the whole migration is tried again (PostgreSQL):
    /// whoever waits for a lock on a table holds up everyone who comes after.
    pub ddl_lock_timeout: Duration,
    /// How long one statement may run (PostgreSQL).
    pub statement_timeout: Duration,
    /// How long to try to connect.
    pub connect_timeout: Duration,
    /// What to let pass that is refused by default.
    pub leniency: Leniency,
    /// Is told what the run is doing.
    pub observer: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_mins(5),
            ddl_lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_hours(1),
            connect_timeout: Duration::from_secs(10),
            leniency: Leniency::default(),
            observer: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("lock_timeout", &self.lock_timeout).finish_non_exhaustive()
    }
}

/// What a run is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another process holds the lock.
    WaitingForLock,
    /// This migration is being applied.
    Applying(String),
}

/// What a run changed, in the order it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Migrations whose `down` ran, newest first.
    pub reverted: Vec<String>,
    /// Migrations whose `up` ran, oldest first.
    pub applied: Vec<String>,
}

/// One migration that `up` would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The migration's name.
    pub name: String,
    /// Whether it runs in a transaction.
    pub transactional: bool,
    /// What it runs; `None` where only running it tells.
    pub sql: Option<String>,
}

/// What `migrate repair` is told to be true of an interrupted migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Everything it does is done.
    Applied,
    /// Nothing it does is left.
    Pending,
}

/// Runs a build's migrations.
#[derive(Debug, Clone)]
pub struct Runner {
    migrations: Migrations,
    options: Options,
}

impl Runner {
    /// A runner of these migrations.
    #[must_use]
    pub fn new(migrations: Migrations, options: Options) -> Self {
        Self { migrations, options }
    }

    /// The same runner with other options.
    #[must_use]
    pub fn with(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut runner = self.clone();
        change(&mut runner.options);
        runner
    }

    /// The newest migration's name, which says what schema this build was made for.
    #[must_use]
    pub fn newest(&self) -> &str {
        self.migrations.newest()
    }

    /// Every migration of this build and of the history, and where it stands. One round trip on any connection that
    /// may read the history; takes no lock, changes nothing.
    pub async fn state(&self, connection: &DatabaseConnection) -> Result<State, DbErr> {
        let history = history::read(connection).await?;
        Ok(State::new(&self.migrations, connection.get_database_backend(), &history))
    }

    /// What [`Runner::up`] would run, oldest first. Reads only.
    pub async fn plan(&self, connection: &DatabaseConnection) -> Result<Vec<Planned>, MigrationError> {
        let backend = connection.get_database_backend();
        let state = self.state(connection).await?;
        state.sound(self.options.leniency)?;
        let planned = |migration: &dyn DescribedMigration| Planned {
            name: migration.name().to_owned(),
            transactional: transactional(migration, backend),
            sql: migration.sql(backend).map(str::to_owned),
        };
        Ok(self.select(&state.pending()).map(planned).collect())
    }

    /// Whether this build can serve with this schema. Reads only.
    pub async fn verify(&self, connection: &DatabaseConnection) -> Result<crate::Fit, MigrationError> {
        Ok(self.state(connection).await?.verify(self.options.leniency)?)
    }

    /// Applies the pending migrations, or the first `limit` of them. On PostgreSQL each is applied and recorded on
    /// its own, so that a failure keeps what came before it; on SQLite all are one transaction.
    pub async fn up(&self, target: &Target, limit: Option<usize>) -> Result<Changes, MigrationError> {
        let limit = limit.unwrap_or(usize::MAX);
        match target {
            Target::Postgres(options) => postgres::up(self, options, limit).await,
            Target::Sqlite(options) => sqlite::up(self, options, limit).await,
        }
        .map_err(permission)
    }

    /// Reverts the newest `steps` migrations, each as it was applied: on PostgreSQL on its own, on SQLite all in one
    /// transaction. Refuses beneath migrations that this build does not have.
    pub async fn down(&self, target: &Target, steps: usize) -> Result<Changes, MigrationError> {
        let reverted = self.revert(target, steps, false).await?;
        Ok(Changes { reverted, applied: Vec::new() })
    }

    /// Reverts all migrations, as [`Runner::down`] does, and drops the history.
    pub async fn reset(&self, target: &Target) -> Result<Changes, MigrationError> {
        let reverted = self.revert(target, usize::MAX, true).await?;
        Ok(Changes { reverted, applied: Vec::new() })
    }

    /// Reverts all migrations, as [`Runner::down`] does, then applies them again.
    pub async fn refresh(&self, target: &Target) -> Result<Changes, MigrationError> {
        let reverted = self.revert(target, usize::MAX, false).await?;
        let applied = self.up(target, None).await?.applied;
        Ok(Changes { reverted, applied })
    }

    /// Drops every table, whoever made it, in one transaction, then applies all migrations.
    pub async fn fresh(&self, target: &Target) -> Result<Changes, MigrationError> {
        match target {
            Target::Postgres(options) => postgres::drop_everything(self, options).await,
            Target::Sqlite(options) => sqlite::drop_everything(self, options).await,
        }
        .map_err(permission)?;
        self.up(target, None).await
    }

    /// Records what a person found to be true of an interrupted migration; refuses for any other.
    pub async fn repair(&self, target: &Target, name: &str, truth: Repair) -> Result<(), MigrationError> {
        let migration =
            self.migrations.find(name).ok_or_else(|| MigrationError::NoSuchMigration { name: name.to_owned() })?;
        match target {
            Target::Postgres(options) => postgres::repair(self, options, migration, truth).await,
            Target::Sqlite(options) => sqlite::repair(self, options, migration, truth).await,
        }
        .map_err(permission)
    }

    async fn revert(&self, target: &Target, steps: usize, uninstall: bool) -> Result<Vec<String>, MigrationError> {
        match target {
            Target::Postgres(options) => postgres::revert(self, options, steps, uninstall).await,
            Target::Sqlite(options) => sqlite::revert(self, options, steps, uninstall).await,
        }
        .map_err(permission)
    }

    /// This build's migrations of these names, in the build's order.
    fn select(&self, names: &[String]) -> impl DoubleEndedIterator<Item = &dyn DescribedMigration> {
        self.migrations.iter().filter(|migration| names.iter().any(|name| name == migration.name()))
    }

    /// Repairs under the lock, so that what looks interrupted is not merely running.
    async fn repair_within(
        &self,
        transaction: &impl ConnectionTrait,
        migration: &dyn DescribedMigration,
        truth: Repair,
    ) -> Result<(), MigrationError> {
        history::install(transaction).await?;
        let entries = history::read_within(transaction).await?;
        let state = State::new(&self.migrations, transaction.get_database_backend(), &Some(entries));
        let step = state.steps.into_iter().find(|step| step.name == migration.name());
        if let Some(Step { name, standing }) = step.filter(|step| step.standing != Standing::Dirty) {
            return Err(MigrationError::NotDirty { name, standing });
        }
        match truth {
            Repair::Applied => {
                history::begin(transaction, migration).await?;
                history::finish(transaction, migration.name()).await?;
            }
            Repair::Pending => history::forget(transaction, migration.name()).await?,
        }
        Ok(())
    }
}

/// A migrator without migrations: its `fresh` drops every table and type, and applies nothing.
struct Nothing;

impl MigratorTrait for Nothing {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

fn transactional(migration: &dyn DescribedMigration, backend: DbBackend) -> bool {
    backend == DbBackend::Sqlite || migration.use_transaction().unwrap_or(true)
}

fn failed(migration: &dyn DescribedMigration, cause: DbErr, left: Left) -> MigrationError {
    MigrationError::Failed { name: migration.name().to_owned(), cause, left }
}

/// Says every ten seconds that a migration still runs, and what it waits for, until it is dropped.
fn report<F>(name: &str, waits_for: impl Fn() -> F + Send + 'static) -> Reporting
where
    F: Future<Output = String> + Send,
{
    let name = name.to_owned();
    Reporting(tokio::spawn(async move {
        let started = Instant::now();
        loop {
            tokio::time::sleep(REPORT).await;
            let waits_for = waits_for().await;
            tracing::info!(migration = name, seconds = started.elapsed().as_secs(), waits_for, "still running");
        }
    }))
}

/// A task that ends with this value.
struct Reporting(JoinHandle<()>);

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells what the database forbids from what went wrong.
fn permission(error: MigrationError) -> MigrationError {
    match error {
        MigrationError::Database(cause) | MigrationError::Failed { cause, .. } if is_not_permitted(&cause) => {
            MigrationError::NotPermitted { cause: cause.to_string() }
        }
        error => error,
    }
}
