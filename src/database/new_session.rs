//! Asks the database in a session of its own, which is closed afterwards.

use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{self, ConnectOptions, Connection, Executor, Row};
use std::time::Duration;

/// Whether a new session's transactions may write: not on a standby (postgresql.org/docs/current/hot-standby.html), and
/// not where the server, the database or the role has `default_transaction_read_only`.
pub(super) const TAKES_WRITES: &str =
    "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off' AS takes_writes";

/// Whether somebody waits for the lock of a table (postgresql.org/docs/current/view-pg-locks.html).
const WAITS_FOR_TABLES: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND NOT granted)";

/// An answer in a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    /// Whether somebody waits for the lock of a table.
    pub(super) waits_for_tables: bool,
}

/// Whether a new session takes writes.
pub(super) async fn takes_writes(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    ask(options, TAKES_WRITES).await
}

async fn ask(options: &PgConnectOptions, question: &'static str) -> Result<bool, sqlx::Error> {
    let mut connection = options.connect().await?;
    // Not prepared, which would take a round trip more.
    let answer = connection.fetch_one(sqlx::raw_sql(question)).await.and_then(|row| row.try_get(0));
    // Not in the way of the answer; what is dropped is closed.
    let _ = PgConnection::close(connection).await;
    answer
}

/// Whether the database answers a new session. One that it refuses for a reason of the session, such as a password, or
/// too many others, is an answer, too.
pub(super) async fn reach(options: &PgConnectOptions, timeout: Duration) -> Result<Reached, sqlx::Error> {
    match tokio::time::timeout(timeout, ask(options, WAITS_FOR_TABLES)).await {
        Ok(Ok(waits_for_tables)) => Ok(Reached { waits_for_tables }),
        // Class 08: connection exception. 57P: the server stops, has crashed, or does not take sessions yet.
        Ok(Err(sqlx::Error::Database(error)))
            if !error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P")) =>
        {
            // It is not known.
            Ok(Reached { waits_for_tables: true })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))),
    }
}

/// Whether the server ended the session on somebody's demand, as in pg_terminate_backend (admin_shutdown).
pub(super) fn was_ended(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("57P01")
}
