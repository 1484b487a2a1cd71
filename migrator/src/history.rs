//! The history in the database: sea-orm's own table, and a second one for what sea-orm does not keep.
//!
//! `seaql_migrations` stays exactly as sea-orm writes it. `seaql_migrations_meta` holds the checksum (`fingerprint`) and
//! the oldest compatible build (`minimum_build`). A migration that runs outside a transaction is in the second table
//! alone until it has ended.

use crate::error::is_missing_table;
use crate::migration::{Migration, Migrations};
use sea_orm_migration::sea_orm::sqlx::{self, Row};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// One row of the history, as the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Of the SQL that was applied; `None` where sea-orm alone has recorded the migration.
    pub(crate) checksum: Option<String>,
    pub(crate) min_compatible_version: Option<String>,
    /// Started outside a transaction, and not recorded as ended.
    pub(crate) running: bool,
}

/// The history; `None` where the database has none yet.
pub(crate) type History = Option<Vec<Entry>>;

const READ: &str = "SELECT coalesce(h.version, m.version) AS name, m.fingerprint, m.minimum_build,
    CASE WHEN h.version IS NULL THEN 'running' END AS running
    FROM seaql_migrations h FULL JOIN seaql_migrations_meta m ON h.version = m.version";

/// For a database that sea-orm alone has migrated so far.
const READ_WITHOUT_META: &str =
    "SELECT version AS name, NULL AS fingerprint, NULL AS minimum_build, NULL AS running FROM seaql_migrations";

const CREATE_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS seaql_migrations (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS seaql_migrations_meta (
        version varchar NOT NULL PRIMARY KEY, fingerprint varchar, minimum_build varchar
    );
";

/// Reads the history on a pool; creates nothing. One round trip, by the simple protocol: through a pooler in transaction
/// mode, a statement that is prepared outside a transaction may not be there when it is executed
/// (pgbouncer.org/features.html).
pub(crate) async fn read(connection: &DatabaseConnection) -> Result<History, DbErr> {
    match fetch(connection, READ).await {
        Err(error) if is_missing_table(&error) => match fetch(connection, READ_WITHOUT_META).await {
            Err(error) if is_missing_table(&error) => Ok(None),
            entries => entries.map(Some),
        },
        entries => entries.map(Some),
    }
}

/// Reads the history within a transaction, where both tables exist.
pub(crate) async fn read_in_transaction(connection: &impl ConnectionTrait) -> Result<History, DbErr> {
    let statement = Statement::from_string(connection.get_database_backend(), READ);
    let rows = connection.query_all_raw(statement).await?;
    rows.iter().map(|row| entry(|column| row.try_get("", column))).collect::<Result<_, _>>().map(Some)
}

async fn fetch(connection: &DatabaseConnection, sql: &'static str) -> Result<Vec<Entry>, DbErr> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let rows = sqlx::raw_sql(sql).fetch_all(connection.get_postgres_connection_pool()).await;
        let rows = rows.map_err(query_error)?;
        rows.iter().map(|row| entry(|column| row.try_get(column).map_err(query_error))).collect()
    } else {
        let rows = sqlx::raw_sql(sql).fetch_all(connection.get_sqlite_connection_pool()).await;
        let rows = rows.map_err(query_error)?;
        rows.iter().map(|row| entry(|column| row.try_get(column).map_err(query_error))).collect()
    }
}

/// The entry that a row holds.
fn entry(column: impl Fn(&'static str) -> Result<Option<String>, DbErr>) -> Result<Entry, DbErr> {
    Ok(Entry {
        name: column("name")?.unwrap_or_default(),
        checksum: column("fingerprint")?,
        min_compatible_version: column("minimum_build")?,
        running: column("running")?.is_some(),
    })
}

/// Tells a connection that could not be had from a query that failed.
fn query_error(error: sqlx::Error) -> DbErr {
    let no_connection = match &error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| is_connection_code(&code)),
        _ => false,
    };
    let error = RuntimeErr::SqlxError(error.into());
    if no_connection { DbErr::Conn(error) } else { DbErr::Query(error) }
}

/// Connection exceptions, refused logins, no such database, too many connections, starting up or shutting down;
/// SQLITE_CANTOPEN.
fn is_connection_code(code: &str) -> bool {
    ["08", "28", "3D", "53", "57P"].iter().any(|class| code.len() == 5 && code.starts_with(class)) || code == "14"
}

/// Creates both tables where they are missing.
pub(crate) async fn create_tables(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    connection.execute_unprepared(CREATE_TABLES).await.map(drop)
}

/// Records this build's checksums for migrations that sea-orm alone has recorded.
pub(crate) async fn baseline(
    connection: &impl ConnectionTrait,
    migrations: &Migrations,
    history: &History,
) -> Result<(), DbErr> {
    for entry in history.iter().flatten().filter(|entry| entry.checksum.is_none() && !entry.running) {
        if let Some(migration) = migrations.find(&entry.name) {
            record_started(connection, migration).await?;
        }
    }
    Ok(())
}

/// Records that a migration has started; without [`record_applied`] it counts as interrupted.
pub(crate) async fn record_started(connection: &impl ConnectionTrait, migration: &Migration) -> Result<(), DbErr> {
    execute(
        connection,
        "INSERT INTO seaql_migrations_meta (version, fingerprint, minimum_build) VALUES ($1, $2, $3)
         ON CONFLICT (version) DO UPDATE SET fingerprint = excluded.fingerprint, minimum_build = excluded.minimum_build",
        [
            migration.name.into(),
            migration.checksum(connection.get_database_backend()).into(),
            migration.min_compatible_version.into(),
        ],
    )
    .await
}

/// Records that a migration is applied.
pub(crate) async fn record_applied(connection: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let sql = "INSERT INTO seaql_migrations (version, applied_at) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING";
    execute(connection, sql, [name.into(), seconds.into()]).await
}

/// Records that an applied migration is being reverted outside a transaction: from here on it counts as interrupted.
pub(crate) async fn record_reverting(connection: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    execute(connection, "DELETE FROM seaql_migrations WHERE version = $1", [name.into()]).await
}

/// Deletes a migration from the history.
pub(crate) async fn delete(connection: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    record_reverting(connection, name).await?;
    execute(connection, "DELETE FROM seaql_migrations_meta WHERE version = $1", [name.into()]).await
}

/// Drops both tables.
pub(crate) async fn drop_tables(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    connection.execute_unprepared("DROP TABLE seaql_migrations_meta; DROP TABLE seaql_migrations").await.map(drop)
}

async fn execute<const N: usize>(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Result<(), DbErr> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    connection.execute_raw(statement).await.map(drop)
}
