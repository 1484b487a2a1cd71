//! Opens the database: a pool for requests, and what migrations connect with.

use crate::config::{DatabaseUrl, Settings};
use bulkhead_migration::Target;
use sea_orm::DatabaseConnection;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Database, Postgres, Sqlite};
use std::time::Duration;
use tracing::log::LevelFilter;

/// A statement slower than this is a warning in the log (its text, never its values).
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// How long a SQLite writer waits for another one.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool that requests use. Opens no connection yet: the first use does, so that the server can answer, and say
/// that it is not ready, while the database is down.
#[must_use]
pub fn pool(settings: &Settings) -> DatabaseConnection {
    match &settings.database {
        DatabaseUrl::Postgres(options) => {
            let timeout = settings.database_statement_timeout.as_millis();
            let options = quiet(options.as_ref().clone().application_name("bulkhead"));
            // Not as a start-up parameter, which PgBouncer refuses.
            let after_connect = format!("SET statement_timeout = {timeout}");
            pool_options::<Postgres>(settings)
                .after_connect(move |connection, _| {
                    let statement = sqlx::raw_sql(AssertSqlSafe(after_connect.clone()));
                    Box::pin(async move { statement.execute(connection).await.map(drop) })
                })
                .connect_lazy_with(options)
                .into()
        }
        DatabaseUrl::Sqlite(options) => {
            let options = sqlite(options).foreign_keys(true).busy_timeout(SQLITE_BUSY_TIMEOUT);
            pool_options::<Sqlite>(settings).connect_lazy_with(options).into()
        }
    }
}

/// Where migrations run, with what every connection of ours has.
#[must_use]
pub fn migration_target(settings: &Settings) -> Target {
    match &settings.migration_database {
        DatabaseUrl::Postgres(options) => {
            Target::Postgres(Box::new(quiet(options.as_ref().clone().application_name("bulkhead migrate"))))
        }
        DatabaseUrl::Sqlite(options) => Target::Sqlite(Box::new(sqlite(options))),
    }
}

/// A connection to read the schema's state with, where migrations run.
#[must_use]
pub fn migration_connection(settings: &Settings) -> DatabaseConnection {
    match migration_target(settings) {
        Target::Postgres(options) => {
            pool_options::<Postgres>(settings).max_connections(1).connect_lazy_with(*options).into()
        }
        Target::Sqlite(options) => {
            pool_options::<Sqlite>(settings).max_connections(1).connect_lazy_with(*options).into()
        }
    }
}

fn pool_options<DB: Database>(settings: &Settings) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(settings.database_max_connections)
        .acquire_timeout(settings.database_acquire_timeout)
}

fn sqlite(options: &SqliteConnectOptions) -> SqliteConnectOptions {
    quiet(options.clone()).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal)
}

fn quiet<O: ConnectOptions>(options: O) -> O {
    options.log_statements(LevelFilter::Trace).log_slow_statements(LevelFilter::Warn, SLOW_STATEMENT)
}
