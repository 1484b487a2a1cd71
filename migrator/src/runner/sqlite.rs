//! SQLite: each run is one transaction begun IMMEDIATE. The file's own write lock excludes other processes, and is
//! released when the process ends, however it ends.

use super::Options;
use super::plan::Plan;
use super::progress::{AbortOnDrop, Progress, report};
use crate::error::{MigrationError, is_busy};
use sea_orm_migration::sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use std::future::ready;
use std::time::Duration;

/// How long to wait for the file's lock before the log says so, and how often it says so again.
const WAIT_LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Runs a plan.
pub(super) async fn execute(plan: &Plan<'_>, connect: &SqliteConnectOptions) -> Result<Vec<String>, MigrationError> {
    let connection = open(plan.options, connect);
    // Before anything is written: a read-only file will do when there is nothing to run.
    if plan.is_done(&connection).await? {
        connection.close().await?;
        return Ok(Vec::new());
    }
    in_transaction(plan.options, connection, async |transaction| {
        plan.execute(transaction, async |migration| {
            let _report = report(migration.name, || ready("nothing".to_owned()));
            plan.run_in(transaction, migration, row_limit(transaction).await?).await
        })
        .await
    })
    .await
}

/// Does `work` in one transaction under the lock.
pub(super) async fn locked<T>(
    options: &Options,
    connect: &SqliteConnectOptions,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, MigrationError>,
) -> Result<T, MigrationError> {
    in_transaction(options, open(options, connect), work).await
}

/// The rows that can be in the file: a row takes 6 bytes at least, 2 of them for its place (sqlite.org/fileformat2.html,
/// "B-tree Pages").
async fn row_limit(transaction: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let bytes = "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size";
    let row = transaction.query_one_raw(Statement::from_string(DbBackend::Sqlite, bytes)).await?;
    let bytes: i64 = row.map(|row| row.try_get("", "bytes")).transpose()?.unwrap_or_default();
    Ok(u64::try_from(bytes).unwrap_or_default() / 6)
}

/// Foreign keys are off while tables are rebuilt (they cannot be switched inside a transaction), and checked before
/// the run is committed: sqlite.org/lang_altertable.html, section 7.
fn open(options: &Options, connect: &SqliteConnectOptions) -> DatabaseConnection {
    let connect = connect.clone().foreign_keys(false).busy_timeout(options.lock_timeout);
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(options.connect_timeout)
        .connect_lazy_with(connect)
        .into()
}

async fn in_transaction<T>(
    options: &Options,
    connection: DatabaseConnection,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, MigrationError>,
) -> Result<T, MigrationError> {
    (options.observer)(Progress::WaitingForLock);
    // SQLite waits by itself, and logs nothing.
    let wait_log = AbortOnDrop(tokio::spawn(async {
        loop {
            tokio::time::sleep(WAIT_LOG_INTERVAL).await;
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
            return Err(MigrationError::LockTimeout { waited: options.lock_timeout, holder });
        }
        transaction => transaction?,
    };
    drop(wait_log);
    let count_dangling = async || {
        let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA foreign_key_check");
        transaction.query_all_raw(check).await.map(|rows| rows.len())
    };
    let before = count_dangling().await?;
    let outcome = work(&transaction).await?;
    let rows = count_dangling().await?.saturating_sub(before);
    if rows > 0 {
        return Err(MigrationError::DanglingForeignKeys { rows });
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(outcome)
}
