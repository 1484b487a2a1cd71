//! Applies migrations so that any number of processes may try at once: each run is one transaction, held under a
//! lock that the database itself lets go of when the transaction or its connection ends.

use crate::Migrator;
use sea_orm_migration::MigrationStatus;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The advisory lock's key, "bulkhead" in ASCII. Advisory locks are per database, so two databases of one server
/// do not wait for each other.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"bulkhead");

/// How often a waiting process asks for the lock again.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Why a run did nothing: every variant leaves the schema as it was.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Another process held the lock for longer than this one may wait.
    #[error("the migration lock was not free within {} s; it is held by {holder}", waited.as_secs())]
    LockTimeout {
        /// How long this process waited.
        waited: Duration,
        /// What the database says of the holder.
        holder: String,
    },
    /// A foreign key would point nowhere once the run is committed (SQLite).
    #[error("the migrations would leave {rows} rows whose foreign key points nowhere; rolled back")]
    DanglingForeignKeys {
        /// How many rows.
        rows: usize,
    },
    /// The database refused.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// One migration of this build and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The migration's name, by which the history knows it.
    pub name: String,
    /// Whether the history holds it.
    pub state: State,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Recorded in the history.
    Applied,
    /// Not yet run.
    Pending,
}

/// What a run changed, in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Migrations whose `down` ran, newest first.
    pub reverted: Vec<String>,
    /// Migrations whose `up` ran, oldest first.
    pub applied: Vec<String>,
}

/// Runs this build's migrations on one database.
///
/// The connection should be a direct one with the right to change the schema; on SQLite it should be opened with
/// `foreign_keys` off and a `busy_timeout` of the lock time-out, since neither can be set inside a transaction.
#[derive(Debug)]
pub struct Runner<'a> {
    connection: &'a DatabaseConnection,
    lock_timeout: Duration,
}

impl<'a> Runner<'a> {
    /// A runner that waits at most `lock_timeout` for another one to end.
    #[must_use]
    pub fn new(connection: &'a DatabaseConnection, lock_timeout: Duration) -> Self {
        Self { connection, lock_timeout }
    }

    /// Every migration of this build with its state. Reads only: no table is created, no lock is taken.
    pub async fn status(connection: &impl ConnectionTrait) -> Result<Vec<Step>, DbErr> {
        let steps = Migrator::get_migration_with_status_read_only(connection).await?;
        Ok(steps
            .iter()
            .map(|step| Step {
                name: step.name().to_owned(),
                state: match step.status() {
                    MigrationStatus::Applied => State::Applied,
                    MigrationStatus::Pending => State::Pending,
                },
            })
            .collect())
    }

    /// The names that [`Runner::up`] would apply. Reads only.
    pub async fn pending(connection: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
        let steps = Self::status(connection).await?;
        Ok(steps.into_iter().filter(|step| step.state == State::Pending).map(|step| step.name).collect())
    }

    /// Applies the pending migrations, or the first `steps` of them.
    pub async fn up(&self, steps: Option<u32>) -> Result<Changes, MigrationError> {
        let transaction = self.begin().await?;
        let before = recorded(&transaction).await?;
        Migrator::up(&transaction, steps).await?;
        let after = self.commit(transaction).await?;
        Ok(Changes { reverted: Vec::new(), applied: after.difference(&before).cloned().collect() })
    }

    /// Reverts the newest `steps` migrations.
    pub async fn down(&self, steps: u32) -> Result<Changes, MigrationError> {
        let transaction = self.begin().await?;
        let before = recorded(&transaction).await?;
        Migrator::down(&transaction, Some(steps)).await?;
        let after = self.commit(transaction).await?;
        let mut reverted: Vec<String> = before.difference(&after).cloned().collect();
        reverted.reverse();
        Ok(Changes { reverted, applied: Vec::new() })
    }

    /// Drops every table, whoever made it, and applies all migrations. Destroys all data.
    pub async fn fresh(&self) -> Result<Changes, MigrationError> {
        let transaction = self.begin().await?;
        Migrator::fresh(&transaction).await?;
        let after = self.commit(transaction).await?;
        Ok(Changes { reverted: Vec::new(), applied: after.into_iter().collect() })
    }

    /// Reverts all migrations and applies them again. Destroys all data in their tables.
    pub async fn refresh(&self) -> Result<Changes, MigrationError> {
        let transaction = self.begin().await?;
        let before = recorded(&transaction).await?;
        Migrator::refresh(&transaction).await?;
        let after = self.commit(transaction).await?;
        Ok(Changes { reverted: before.into_iter().rev().collect(), applied: after.into_iter().collect() })
    }

    /// Reverts all migrations and drops the history. Destroys all data in their tables.
    pub async fn reset(&self) -> Result<Changes, MigrationError> {
        let transaction = self.begin().await?;
        let before = recorded(&transaction).await?;
        Migrator::reset(&transaction).await?;
        self.commit(transaction).await?;
        Ok(Changes { reverted: before.into_iter().rev().collect(), applied: Vec::new() })
    }

    /// Begins the run's transaction and takes the lock in it, before anything is read.
    async fn begin(&self) -> Result<DatabaseTransaction, MigrationError> {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        if self.connection.get_database_backend() == DbBackend::Sqlite {
            return self.connection.begin_with_options(immediate).await.map_err(|error| {
                if error.to_string().contains("database is locked") {
                    let holder = "another process that writes to this file".to_owned();
                    MigrationError::LockTimeout { waited: self.lock_timeout, holder }
                } else {
                    error.into()
                }
            });
        }
        let transaction = self.connection.begin().await?;
        self.lock(&transaction).await?;
        Ok(transaction)
    }

    /// Polls for the transaction-level advisory lock. Never blocks inside the database: a blocked waiter holds a
    /// snapshot, for which CREATE INDEX CONCURRENTLY in the holder would wait for ever.
    async fn lock(&self, transaction: &DatabaseTransaction) -> Result<(), MigrationError> {
        let started = Instant::now();
        loop {
            let ask = Statement::from_sql_and_values(
                DbBackend::Postgres,
                "SELECT pg_try_advisory_xact_lock($1) AS taken",
                [LOCK_KEY.into()],
            );
            let row = transaction.query_one_raw(ask).await?;
            if row.map(|row| row.try_get::<bool>("", "taken")).transpose()? == Some(true) {
                return Ok(());
            }
            let waited = started.elapsed();
            if waited >= self.lock_timeout {
                return Err(MigrationError::LockTimeout { waited, holder: holder(transaction).await? });
            }
            if waited < LOCK_POLL {
                tracing::info!("waiting for another process to finish its migrations");
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Commits the run and returns the history as it then stands.
    async fn commit(&self, transaction: DatabaseTransaction) -> Result<BTreeSet<String>, MigrationError> {
        if self.connection.get_database_backend() == DbBackend::Sqlite {
            let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA foreign_key_check");
            let rows = transaction.query_all_raw(check).await?.len();
            if rows > 0 {
                return Err(MigrationError::DanglingForeignKeys { rows });
            }
        }
        let after = recorded(&transaction).await?;
        transaction.commit().await?;
        Ok(after)
    }
}

/// The recorded migrations; names sort by time.
async fn recorded(connection: &impl ConnectionTrait) -> Result<BTreeSet<String>, DbErr> {
    let steps = Runner::status(connection).await?;
    Ok(steps.into_iter().filter(|step| step.state == State::Applied).map(|step| step.name).collect())
}

/// Names the session that holds the lock, for whoever must decide whether to end it.
async fn holder(connection: &impl ConnectionTrait) -> Result<String, DbErr> {
    let ask = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT format('process %s of the database server (application %s)', a.pid, quote_literal(a.application_name)) AS holder
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (l.classid::bigint << 32 | l.objid::bigint) = $1",
        [LOCK_KEY.into()],
    );
    let row = connection.query_one_raw(ask).await?;
    Ok(match row {
        Some(row) => row.try_get("", "holder")?,
        None => "a process that has just ended".to_owned(),
    })
}
