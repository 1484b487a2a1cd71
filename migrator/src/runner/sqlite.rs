//! SQLite: each run is one transaction begun IMMEDIATE. The file's own write lock keeps others out, and goes with the
//! process however it ends.

use super::{Changes, Nothing, Progress, Repair, Reporting, Runner, failed, report};
use crate::catalogue::DescribedMigration;
use crate::error::{Left, MigrationError, is_busy};
use crate::history;
use crate::state::{Standing, State};
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};
use std::time::Duration;

/// How long to wait for the file's lock without a word, and between words.
const SAY_SO: Duration = Duration::from_secs(2);

pub(super) async fn up(
    runner: &Runner,
    options: &SqliteConnectOptions,
    limit: usize,
) -> Result<Changes, MigrationError> {
    // Before anything is written: a file that may only be read is fine when there is nothing to do.
    let connection = open(runner, options);
    let state = runner.state(&connection).await?;
    state.sound(runner.options.leniency)?;
    if state.is_done() {
        connection.close().await?;
        return Ok(Changes::default());
    }
    run(runner, connection, async |transaction| {
        history::install(transaction).await?;
        let entries = history::read_within(transaction).await?;
        history::adopt(transaction, runner.migrations.iter(), &entries).await?;
        let state = State::new(&runner.migrations, DbBackend::Sqlite, &Some(entries));
        state.sound(runner.options.leniency)?;
        let mut changes = Changes::default();
        for migration in runner.select(&state.pending()).take(limit) {
            let name = migration.name();
            (runner.options.observer)(Progress::Applying(name.to_owned()));
            tracing::info!(migration = name, "applying");
            let started = std::time::Instant::now();
            let _reporting = report(name, || std::future::ready("nothing: it works".to_owned()));
            migration
                .up(&SchemaManager::new(transaction))
                .await
                .map_err(|cause| failed(migration, cause, Left::Nothing))?;
            history::begin(transaction, migration).await?;
            history::finish(transaction, name).await?;
            tracing::info!(migration = name, duration_ms = started.elapsed().as_millis(), "applied");
            changes.applied.push(name.to_owned());
        }
        Ok(changes)
    })
    .await
}

pub(super) async fn revert(
    runner: &Runner,
    options: &SqliteConnectOptions,
    steps: usize,
    uninstall: bool,
) -> Result<Vec<String>, MigrationError> {
    let connection = open(runner, options);
    if history::read(&connection).await?.is_none() {
        connection.close().await?;
        return Ok(Vec::new());
    }
    run(runner, connection, async |transaction| {
        history::install(transaction).await?;
        let entries = history::read_within(transaction).await?;
        let state = State::new(&runner.migrations, DbBackend::Sqlite, &Some(entries));
        state.revertible()?;
        let mut reverted = Vec::new();
        for migration in runner.select(&state.names(Standing::Applied)).rev().take(steps) {
            let name = migration.name();
            let _reporting = report(name, || std::future::ready("nothing: it works".to_owned()));
            let down = migration.down(&SchemaManager::new(transaction)).await;
            down.map_err(|cause| failed(migration, cause, Left::Nothing))?;
            history::forget(transaction, name).await?;
            reverted.push(name.to_owned());
        }
        if uninstall {
            history::uninstall(transaction).await?;
        }
        Ok(reverted)
    })
    .await
}

pub(super) async fn drop_everything(runner: &Runner, options: &SqliteConnectOptions) -> Result<(), MigrationError> {
    run(runner, open(runner, options), async |transaction| Ok(Nothing::fresh(transaction).await?)).await
}

pub(super) async fn repair(
    runner: &Runner,
    options: &SqliteConnectOptions,
    migration: &dyn DescribedMigration,
    truth: Repair,
) -> Result<(), MigrationError> {
    run(runner, open(runner, options), async |transaction| runner.repair_within(transaction, migration, truth).await)
        .await
}

/// Foreign keys are off while tables are rebuilt (they cannot be switched inside a transaction), and checked before
/// the run is committed: sqlite.org/lang_altertable.html, section 7.
fn open(runner: &Runner, options: &SqliteConnectOptions) -> DatabaseConnection {
    let options = options.clone().foreign_keys(false).busy_timeout(runner.options.lock_timeout);
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(runner.options.connect_timeout)
        .connect_lazy_with(options)
        .into()
}

async fn run<T>(
    runner: &Runner,
    connection: DatabaseConnection,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, MigrationError>,
) -> Result<T, MigrationError> {
    (runner.options.observer)(Progress::WaitingForLock);
    // SQLite itself waits, without a word.
    let waiting = Reporting(tokio::spawn(async {
        loop {
            tokio::time::sleep(SAY_SO).await;
            tracing::info!("waiting for another process that writes to this file");
        }
    }));
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = match connection.begin_with_options(immediate).await {
        Err(error) if is_busy(&error) => {
            let holder = "another process that writes to this file".to_owned();
            return Err(MigrationError::LockTimeout { waited: runner.options.lock_timeout, holder });
        }
        transaction => transaction?,
    };
    drop(waiting);
    let dangling = async || {
        let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA foreign_key_check");
        transaction.query_all_raw(check).await.map(|rows| rows.len())
    };
    let before = dangling().await?;
    let done = work(&transaction).await?;
    let rows = dangling().await?.saturating_sub(before);
    if rows > 0 {
        return Err(MigrationError::DanglingForeignKeys { rows });
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(done)
}
