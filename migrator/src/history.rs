//! The history in the database: sea-orm's own table, and beside it what sea-orm does not keep.
//!
//! `seaql_migrations` stays exactly as sea-orm writes it. `seaql_migrations_meta` holds the fingerprint, the minimum
//! build, and whether a migration outside a transaction is still running.

use crate::catalogue::DescribedMigration;
use crate::error::is_missing_table;
use crate::state::{Entry, History};
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::sqlx::{self, ColumnIndex, Decode, Row, Type};
use sea_orm_migration::sea_orm::{DatabaseConnection, DbBackend, FromQueryResult, RuntimeErr, Statement};
use std::time::{SystemTime, UNIX_EPOCH};

const READ: &str = "SELECT coalesce(h.version, m.version) AS name, m.fingerprint, m.minimum_build,
    CASE WHEN h.version IS NULL THEN 'running' END AS running
    FROM seaql_migrations h FULL JOIN seaql_migrations_meta m ON h.version = m.version";

/// For a database that sea-orm alone has migrated so far.
const READ_WITHOUT_META: &str =
    "SELECT version AS name, NULL AS fingerprint, NULL AS minimum_build, NULL AS running FROM seaql_migrations";

const INSTALL: &str = "
    CREATE TABLE IF NOT EXISTS seaql_migrations (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS seaql_migrations_meta (
        version varchar NOT NULL PRIMARY KEY, fingerprint varchar, minimum_build varchar
    );
";

/// Reads the history in one round trip, by the simple protocol: nothing is prepared, nothing is created.
pub(crate) async fn read(connection: &DatabaseConnection) -> Result<History, DbErr> {
    match fetch(connection, READ).await {
        Err(error) if is_missing_table(&error) => match fetch(connection, READ_WITHOUT_META).await {
            Err(error) if is_missing_table(&error) => Ok(None),
            outcome => outcome.map(Some),
        },
        outcome => outcome.map(Some),
    }
}

async fn fetch(connection: &DatabaseConnection, sql: &'static str) -> Result<Vec<Entry>, DbErr> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let pool = connection.get_postgres_connection_pool();
        entries(&sqlx::raw_sql(sql).fetch_all(pool).await.map_err(query_error)?)
    } else {
        let pool = connection.get_sqlite_connection_pool();
        entries(&sqlx::raw_sql(sql).fetch_all(pool).await.map_err(query_error)?)
    }
}

/// Not having got a connection is another matter than a query that failed.
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

fn entries<R: Row>(rows: &[R]) -> Result<Vec<Entry>, DbErr>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    rows.iter()
        .map(|row| {
            let field = |name: &str| row.try_get::<Option<String>, _>(name).map_err(query_error);
            Ok(Entry {
                name: field("name")?.unwrap_or_default(),
                fingerprint: field("fingerprint")?,
                minimum_build: field("minimum_build")?,
                running: field("running")?.is_some(),
            })
        })
        .collect()
}

/// Reads the history inside a transaction, where the tables are known to be there.
pub(crate) async fn read_within(connection: &impl ConnectionTrait) -> Result<Vec<Entry>, DbErr> {
    #[derive(FromQueryResult)]
    struct Read {
        name: String,
        fingerprint: Option<String>,
        minimum_build: Option<String>,
        running: Option<String>,
    }
    let statement = Statement::from_string(connection.get_database_backend(), READ);
    let rows = Read::find_by_statement(statement).all(connection).await?;
    Ok(rows
        .into_iter()
        .map(|row| Entry {
            name: row.name,
            fingerprint: row.fingerprint,
            minimum_build: row.minimum_build,
            running: row.running.is_some(),
        })
        .collect())
}

/// Makes both tables where they are missing.
pub(crate) async fn install(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    connection.execute_unprepared(INSTALL).await.map(drop)
}

/// Records what a database that sea-orm alone has migrated so far does not hold: the fingerprints of today.
pub(crate) async fn adopt(
    connection: &impl ConnectionTrait,
    migrations: impl Iterator<Item = &dyn DescribedMigration>,
    entries: &[Entry],
) -> Result<(), DbErr> {
    for migration in migrations {
        let bare = |entry: &&Entry| entry.name == migration.name() && entry.fingerprint.is_none() && !entry.running;
        if migration.fingerprint(connection.get_database_backend()).is_some() && entries.iter().any(|e| bare(&e)) {
            begin(connection, migration).await?;
        }
    }
    Ok(())
}

/// Records that a migration has begun; without [`finish`] it counts as interrupted.
pub(crate) async fn begin(connection: &impl ConnectionTrait, migration: &dyn DescribedMigration) -> Result<(), DbErr> {
    let backend = connection.get_database_backend();
    let statement = Statement::from_sql_and_values(
        backend,
        "INSERT INTO seaql_migrations_meta (version, fingerprint, minimum_build) VALUES ($1, $2, $3)
         ON CONFLICT (version) DO UPDATE SET fingerprint = excluded.fingerprint, minimum_build = excluded.minimum_build",
        [migration.name().into(), migration.fingerprint(backend).into(), migration.minimum_build().into()],
    );
    connection.execute_raw(statement).await.map(drop)
}

/// Records that a migration is applied.
pub(crate) async fn finish(connection: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let statement = Statement::from_sql_and_values(
        connection.get_database_backend(),
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING",
        [name.into(), <i64 as TryFrom<_>>::try_from(seconds).unwrap_or(i64::MAX).into()],
    );
    connection.execute_raw(statement).await.map(drop)
}

/// Records that a migration which was applied is being reverted.
pub(crate) async fn unfinish(connection: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    let sql = "DELETE FROM seaql_migrations WHERE version = $1";
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [name.into()]);
    connection.execute_raw(statement).await.map(drop)
}

/// Takes a migration out of the history.
pub(crate) async fn forget(connection: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    unfinish(connection, name).await?;
    let sql = "DELETE FROM seaql_migrations_meta WHERE version = $1";
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [name.into()]);
    connection.execute_raw(statement).await.map(drop)
}

/// Drops both tables.
pub(crate) async fn uninstall(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    connection.execute_unprepared("DROP TABLE seaql_migrations_meta; DROP TABLE seaql_migrations").await.map(drop)
}
