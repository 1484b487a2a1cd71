//! Runs migrations so that any number of processes may try at once.

mod batches;
mod plan;
mod postgres;
mod progress;
mod sqlite;

use crate::compatibility::{AllowOptions, CheckPolicy, Compatibility, MigrationStatus, SchemaMismatch, SchemaState};
use crate::error::{AfterFailure, MigrationError, is_not_permitted, text};
use crate::history;
use crate::locks::{TableLock, table_locks, table_sizes};
use crate::migration::{Direction, Migration, Migrations, Mode};
use plan::Plan;
pub use progress::Progress;
use sea_orm_migration::sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm_migration::sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The database that migrations change, reached directly and with the right to change the schema.
#[derive(Clone)]
pub enum Target {
    /// PostgreSQL 12 or newer.
    Postgres(Box<PgConnectOptions>),
    /// A SQLite file.
    Sqlite(Box<SqliteConnectOptions>),
}

impl Target {
    /// Opens a session and closes it (PostgreSQL). It fails at once where the server cannot be reached or refuses the session,
    /// and after `timeout` where it does not answer, has no session left, or is only starting. A pool tries again while
    /// connections are refused, and then says only that its time is up (launchbadge/sqlx, sqlx-core/src/pool/inner.rs,
    /// `connect`).
    pub async fn reach(&self, timeout: Duration) -> Result<(), DbErr> {
        match self {
            Self::Postgres(options) => postgres::reach(options, timeout).await,
            Self::Sqlite(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Target {
    /// Leaves out the options, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres(_) => "Postgres",
            Self::Sqlite(_) => "Sqlite",
        })
    }
}

/// Timeouts, and how strict a runner is.
#[derive(Clone)]
pub struct Options {
    /// How long to wait for another process's run to end.
    pub lock_timeout: Duration,
    /// How long one statement may wait for a table's lock before the whole migration is tried again (PostgreSQL): a
    /// session that waits for a lock on a table holds up every session that comes after it.
    pub ddl_lock_timeout: Duration,
    /// How long one statement may run (PostgreSQL).
    pub statement_timeout: Duration,
    /// How long to try to connect.
    pub connect_timeout: Duration,
    /// What to accept that is refused by default.
    pub allow: AllowOptions,
    /// How much [`Runner::check`] looks at.
    pub policy: CheckPolicy,
    /// Called when a run waits, and when a migration begins.
    pub observer: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_mins(5),
            ddl_lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_hours(1),
            connect_timeout: Duration::from_secs(10),
            allow: AllowOptions::default(),
            policy: CheckPolicy::default(),
            observer: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("lock_timeout", &self.lock_timeout).finish_non_exhaustive()
    }
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
    pub name: &'static str,
    /// How it runs.
    pub mode: Mode,
    /// The SQL that it runs.
    pub sql: &'static str,
    /// What it locks of the tables that exist (PostgreSQL); `None` where that was not measured.
    pub locks: Option<Vec<TableLock>>,
}

/// What a person found out about an interrupted migration.
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

    /// Every migration of this build and of the history, with its status. Works on any connection that may read the
    /// history; takes no lock, changes nothing.
    pub async fn state(&self, connection: &DatabaseConnection) -> Result<SchemaState, DbErr> {
        let history = history::read(connection).await?;
        Ok(SchemaState::new(&self.migrations, connection.get_database_backend(), &history))
    }

    /// Whether this build can serve with a schema in this state, by this runner's options.
    pub fn check(&self, state: &SchemaState) -> Result<Compatibility, SchemaMismatch> {
        state.check(self.options.policy, self.options.allow)
    }

    /// What [`Runner::up`] would run, oldest first. Reads only.
    pub async fn plan(&self, connection: &DatabaseConnection) -> Result<Vec<Planned>, MigrationError> {
        let backend = connection.get_database_backend();
        let state = self.state(connection).await?;
        state.validate(self.options.allow)?;
        let sizes = match backend {
            DbBackend::Postgres => table_sizes(connection).await?,
            _ => HashMap::new(),
        };
        let planned = |migration: &Migration| Planned {
            name: migration.name,
            mode: match (backend, migration.mode) {
                (DbBackend::Sqlite, Mode::NonTransactional | Mode::ConcurrentIndex(_)) => Mode::Transaction,
                (_, mode) => mode,
            },
            sql: migration.up.on(backend),
            locks: match backend {
                DbBackend::Postgres => table_locks(&self.migrations, migration.name, &sizes),
                _ => Some(Vec::new()),
            },
        };
        Ok(self.migrations.select(&state.pending()).map(planned).collect())
    }

    /// Applies the pending migrations, or the first `limit` of them. On PostgreSQL each is applied and recorded on
    /// its own, so that a failure keeps what came before it; on SQLite all are one transaction.
    pub async fn up(&self, target: &Target, limit: Option<usize>) -> Result<Changes, MigrationError> {
        let applied = self.execute(target, Direction::Up, limit.unwrap_or(usize::MAX), false).await?;
        Ok(Changes { applied, ..Changes::default() })
    }

    /// Reverts the newest `steps` migrations, each as it was applied: on PostgreSQL on its own, on SQLite all in one
    /// transaction. Refuses where the history holds newer migrations, or ones that this build does not have.
    pub async fn down(&self, target: &Target, steps: usize) -> Result<Changes, MigrationError> {
        let reverted = self.execute(target, Direction::Down, steps, false).await?;
        Ok(Changes { reverted, ..Changes::default() })
    }

    /// Reverts all migrations, as [`Runner::down`] does, and drops the history.
    pub async fn reset(&self, target: &Target) -> Result<Changes, MigrationError> {
        let reverted = self.execute(target, Direction::Down, usize::MAX, true).await?;
        Ok(Changes { reverted, ..Changes::default() })
    }

    /// Reverts all migrations, as [`Runner::down`] does, then applies them again.
    pub async fn refresh(&self, target: &Target) -> Result<Changes, MigrationError> {
        let reverted = self.down(target, usize::MAX).await?.reverted;
        let applied = self.up(target, None).await?.applied;
        Ok(Changes { reverted, applied })
    }

    /// Drops every table, whoever made it, in one transaction, then applies all migrations.
    pub async fn fresh(&self, target: &Target) -> Result<Changes, MigrationError> {
        self.locked(target, async |transaction| Ok(EmptyMigrator::fresh(transaction).await?)).await?;
        self.up(target, None).await
    }

    /// Records what a person found out about an interrupted migration; refuses for any other. Works under the lock, so
    /// that a migration which is still running does not look interrupted.
    pub async fn repair(&self, target: &Target, name: &str, outcome: Repair) -> Result<(), MigrationError> {
        let migration =
            self.migrations.find(name).ok_or_else(|| MigrationError::NoSuchMigration { name: name.to_owned() })?;
        self.locked(target, async |transaction| {
            history::create_tables(transaction).await?;
            let history = history::read_in_transaction(transaction).await?;
            let state = SchemaState::new(&self.migrations, transaction.get_database_backend(), &history);
            let info = state.migrations.into_iter().find(|info| info.name == name);
            if let Some(info) = info.filter(|info| info.status != MigrationStatus::Dirty) {
                return Err(MigrationError::NotDirty { name: info.name, status: info.status });
            }
            match outcome {
                Repair::Applied => {
                    history::record_started(transaction, migration).await?;
                    history::record_applied(transaction, name).await?;
                }
                Repair::Pending => history::delete(transaction, name).await?,
            }
            Ok(())
        })
        .await
    }

    async fn execute(
        &self,
        target: &Target,
        direction: Direction,
        limit: usize,
        drop_history: bool,
    ) -> Result<Vec<String>, MigrationError> {
        let Self { migrations, options } = self;
        let plan = Plan { migrations, options, direction, limit, drop_history };
        match target {
            Target::Postgres(connect) => postgres::execute(&plan, connect).await,
            Target::Sqlite(connect) => sqlite::execute(&plan, connect).await,
        }
        .map_err(not_permitted)
    }

    /// Does `work` in one transaction under the lock.
    async fn locked<T>(
        &self,
        target: &Target,
        work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, MigrationError>,
    ) -> Result<T, MigrationError> {
        match target {
            Target::Postgres(connect) => postgres::locked(&self.options, connect, work).await,
            Target::Sqlite(connect) => sqlite::locked(&self.options, connect, work).await,
        }
        .map_err(not_permitted)
    }
}

/// sea-orm's `fresh` drops every table and type; with no migrations it applies nothing.
struct EmptyMigrator;

impl MigratorTrait for EmptyMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

fn failed(migration: &Migration, cause: DbErr, after: AfterFailure) -> MigrationError {
    MigrationError::Failed { name: migration.name.to_owned(), cause, after }
}

/// Turns a database error into [`MigrationError::NotPermitted`] where the role or the database forbids the change.
fn not_permitted(error: MigrationError) -> MigrationError {
    match error {
        MigrationError::Database(cause) | MigrationError::Failed { cause, .. } if is_not_permitted(&cause) => {
            MigrationError::NotPermitted { cause: text(&cause) }
        }
        error => error,
    }
}
