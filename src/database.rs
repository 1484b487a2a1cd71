//! Opens the database: one pool for requests, one connection for migrations.

use crate::config::{DatabaseUrl, Settings};
use sea_orm::DatabaseConnection;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions, Database, Postgres, Sqlite};
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
            let timeout = settings.database_statement_timeout.as_millis().to_string();
            let options = quiet(options.as_ref().clone().application_name("bulkhead"))
                .options([("statement_timeout", timeout.as_str())]);
            pool_options::<Postgres>(settings).connect_lazy_with(options).into()
        }
        DatabaseUrl::Sqlite(options) => {
            let options = sqlite(options).foreign_keys(true).busy_timeout(SQLITE_BUSY_TIMEOUT);
            pool_options::<Sqlite>(settings).connect_lazy_with(options).into()
        }
    }
}

/// The one connection that migrations use: no statement time-out, since changing a large table takes what it takes.
#[must_use]
pub fn migration_connection(settings: &Settings) -> DatabaseConnection {
    match &settings.migration_database {
        DatabaseUrl::Postgres(options) => {
            let options = quiet(options.as_ref().clone().application_name("bulkhead migrate"));
            pool_options::<Postgres>(settings).max_connections(1).connect_lazy_with(options).into()
        }
        DatabaseUrl::Sqlite(options) => {
            // Off while tables are rebuilt; the runner checks all keys before it commits (sqlite.org/lang_altertable.html).
            let options = sqlite(options).foreign_keys(false).busy_timeout(settings.migration_lock_timeout);
            pool_options::<Sqlite>(settings).max_connections(1).connect_lazy_with(options).into()
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
