//! SQLite's connections, and its transactions where SQLite has ended one by itself. A ROLLBACK as a plain statement, which
//! the driver does not count, stands for that.

#![allow(clippy::unwrap_used)]

use super::{Access, begin, migration_connection};
use crate::config::Settings;
use crate::ids::TenantId;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use tempfile::TempDir;
use uuid::Uuid;

/// A file with a table `things`.
async fn file() -> (TempDir, SqliteConnectOptions) {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("things.db")).create_if_missing(true);
    let connection = driver(&options);
    connection.execute_unprepared("CREATE TABLE things (name TEXT)").await.unwrap();
    connection.close().await.unwrap();
    (folder, options)
}

/// The settings of a process that has one connection to that file.
fn settings(folder: &TempDir) -> Settings {
    let url = format!("sqlite://{}", folder.path().join("things.db").display());
    let environment = [("DATABASE_URL", url.as_str()), ("DATABASE_MAX_CONNECTIONS", "1")];
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    Settings::read(&lookup).0.unwrap()
}

/// The pool that requests use.
fn pool(settings: &Settings) -> DatabaseConnection {
    super::pool(settings).inner
}

/// One connection, as the driver has it.
fn driver(options: &SqliteConnectOptions) -> DatabaseConnection {
    SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options.clone()).into()
}

async fn count(connection: &impl ConnectionTrait, table: &str) -> Result<i64, DbErr> {
    let sql = format!("SELECT count(*) AS count FROM {table}");
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    connection.query_one_raw(statement).await?.unwrap().try_get("", "count")
}

#[tokio::test]
async fn a_connection_whose_transaction_did_not_end_as_it_should_serves_no_more() {
    let (folder, _options) = file().await;
    let pool = pool(&settings(&folder));
    // A temporary table is its connection's own.
    let mark = "CREATE TEMP TABLE mark (name TEXT)";
    for (statement, kept) in [("SELECT 1", true), ("ROLLBACK", false), ("COMMIT", false)] {
        for access in [Access::Read, Access::Write] {
            pool.execute_unprepared(mark).await.unwrap();
            let transaction = begin(&pool, TenantId(Uuid::nil()), access).await.unwrap();
            transaction.execute_unprepared(statement).await.unwrap();
            drop(transaction);
            assert_eq!(count(&pool, "mark").await.is_ok(), kept, "{statement} of {access:?}");
            pool.execute_unprepared("DROP TABLE IF EXISTS mark").await.unwrap();
        }
    }
    // A transaction that the driver knows nothing of.
    pool.execute_unprepared(mark).await.unwrap();
    pool.execute_unprepared("BEGIN").await.unwrap();
    assert!(count(&pool, "mark").await.is_err());
    // And a commit keeps the connection.
    pool.execute_unprepared(mark).await.unwrap();
    let transaction = begin(&pool, TenantId(Uuid::nil()), Access::Write).await.unwrap();
    transaction.execute_unprepared("INSERT INTO things VALUES ('one')").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count(&pool, "mark").await.unwrap(), 0);
    assert_eq!(count(&pool, "things").await.unwrap(), 1);
}

#[tokio::test]
async fn a_commit_commits_whatever_the_driver_counts() {
    let (_folder, options) = file().await;
    let (writer, reader) = (driver(&options), driver(&options));
    // What the pool's connections are closed for, twice: a transaction that the driver counts and SQLite has not, then
    // one that SQLite has and the driver takes to be rolled back.
    let transaction = begin(&writer, TenantId(Uuid::nil()), Access::Write).await.unwrap();
    transaction.execute_unprepared("ROLLBACK").await.unwrap();
    drop(transaction);
    drop(begin(&writer, TenantId(Uuid::nil()), Access::Read).await.unwrap());
    let transaction = begin(&writer, TenantId(Uuid::nil()), Access::Write).await.unwrap();
    transaction.execute_unprepared("INSERT INTO things VALUES ('one')").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count(&reader, "things").await.unwrap(), 1);
}

#[tokio::test]
async fn a_commit_fails_where_there_is_no_transaction_any_more() {
    let (_folder, options) = file().await;
    let writer = driver(&options);
    let transaction = begin(&writer, TenantId(Uuid::nil()), Access::Write).await.unwrap();
    transaction.execute_unprepared("INSERT INTO things VALUES ('one')").await.unwrap();
    transaction.execute_unprepared("ROLLBACK").await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert!(error.to_string().contains("no transaction is active"), "{error}");
}

#[tokio::test]
async fn every_commit_is_synced() {
    let (folder, _options) = file().await;
    let settings = settings(&folder);
    for connection in [pool(&settings), migration_connection(&settings).await.unwrap()] {
        for (name, value) in [("synchronous", "2"), ("journal_mode", "wal")] {
            let sql = format!("SELECT CAST({name} AS TEXT) AS value FROM pragma_{name}");
            let statement = Statement::from_string(connection.get_database_backend(), sql);
            let row = connection.query_one_raw(statement).await.unwrap().unwrap();
            assert_eq!(row.try_get::<String>("", "value").unwrap(), value, "{name}");
        }
    }
}
