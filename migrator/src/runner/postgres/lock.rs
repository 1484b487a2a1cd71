//! A session-level advisory lock on a connection of its own. Closing the connection releases it, on every path.

use super::pooler::reject_pooler;
use crate::error::MigrationError;
use crate::runner::Options;
use crate::runner::progress::{AbortOnDrop, Progress, report};
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sea_orm_migration::sea_orm::sqlx::{self, ConnectOptions, Connection, Row};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, Statement,
    TransactionTrait, TryGetable,
};
use std::io;
use std::time::{Duration, Instant};

/// The lock's key: one per schema and history table, so that applications that share a database do not share the lock.
/// The server hashes, so that all contenders agree.
const KEY: &str = "hashtextextended('sea-orm-migration/' || coalesce(current_schema(), '') || '/seaql_migrations', 0)";

/// How often a waiting process asks again. Each adds up to as much again at random, so that many do not ask at once.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The one session that locks and migrates.
pub(super) struct LockSession<'a> {
    /// A pool of one. If its connection breaks, the next use opens another, without the lock: hence
    /// [`ensure_lock_held`].
    pub(super) connection: DatabaseConnection,
    /// The server process of the session.
    pid: i32,
    options: &'a Options,
    connect: &'a PgConnectOptions,
}

impl<'a> LockSession<'a> {
    pub(super) async fn open(options: &'a Options, connect: &'a PgConnectOptions) -> Result<Self, MigrationError> {
        let other = session(connect, options.connect_timeout).await?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(options.connect_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(connect.clone())
            .await
            .map_err(connect_error)?;
        let pid = reject_pooler(&pool, other, options.connect_timeout).await?;
        // From PostgreSQL 14 on the server notices within half a second that a killed client is gone, also while a
        // statement runs, and releases the lock.
        sqlx::raw_sql(
            "SELECT set_config('client_connection_check_interval', '500', false)
             WHERE current_setting('server_version_num')::int >= 140000",
        )
        .execute(&pool)
        .await
        .map_err(connect_error)?;
        Ok(Self { connection: pool.into(), pid, options, connect })
    }

    pub(super) async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the migration connection did not close cleanly");
        }
    }

    /// Waits for the lock, or until `done`; returns whether the lock is held.
    ///
    /// Asks again and again, each time in a transaction of its own. Waiting inside the database would hold a snapshot,
    /// for whose end CREATE INDEX CONCURRENTLY in the holder would wait in turn.
    pub(super) async fn lock_unless(
        &self,
        done: impl AsyncFn() -> Result<bool, DbErr>,
    ) -> Result<bool, MigrationError> {
        let started = Instant::now();
        let mut waiting = false;
        loop {
            let ask = format!("SELECT pg_try_advisory_lock({KEY}) AS taken");
            if self.ask::<bool>(&ask, "taken").await? == Some(true) {
                return Ok(true);
            }
            if done().await? {
                return Ok(false);
            }
            let waited = started.elapsed();
            if waited >= self.options.lock_timeout {
                return Err(MigrationError::LockTimeout { waited, holder: self.holder().await? });
            }
            if !waiting {
                waiting = true;
                (self.options.observer)(Progress::WaitingForLock);
                tracing::info!(holder = self.holder().await?, "waiting for another process to finish its migrations");
            }
            tokio::time::sleep(POLL_INTERVAL + POLL_INTERVAL.mul_f64(fastrand::f64())).await;
        }
    }

    async fn ask<T: TryGetable>(&self, sql: &str, column: &str) -> Result<Option<T>, DbErr> {
        let row = self.connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
        row.map(|row| row.try_get("", column)).transpose()
    }

    /// Describes the session that holds the lock, for a person who must decide whether to end it.
    async fn holder(&self) -> Result<String, DbErr> {
        let sql = format!(
            "SELECT format('process %s of the database server, application %s, for %s s', a.pid,
                 quote_literal(a.application_name), round(extract(epoch FROM now() - a.backend_start))) AS holder
             FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE l.granted AND {}",
            is_this_lock("l")
        );
        Ok(self.ask(&sql, "holder").await?.unwrap_or_else(|| "a process that has just ended".to_owned()))
    }

    /// Begins a transaction in which this session is known to hold the lock; `purpose` is for the error.
    pub(super) async fn begin(&self, purpose: &str) -> Result<DatabaseTransaction, MigrationError> {
        let transaction = self.connection.begin().await?;
        ensure_lock_held(&transaction, purpose).await?;
        let settings = format!(
            "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
            self.options.ddl_lock_timeout.as_millis(),
            self.options.statement_timeout.as_millis()
        );
        transaction.execute_unprepared(&settings).await?;
        Ok(transaction)
    }

    /// Logs that a migration still runs, and what it waits for as another session sees it.
    pub(super) fn report(&self, name: &'static str) -> AbortOnDrop {
        let (connect, pid) = (self.connect.clone(), self.pid);
        report(name, move || {
            let connect = connect.clone();
            async move { waiting_for(&connect, pid).await.unwrap_or_else(|error| format!("unknown: {error}")) }
        })
    }
}

/// Fails unless the session of `connection` holds the lock.
pub(super) async fn ensure_lock_held(connection: &impl ConnectionTrait, purpose: &str) -> Result<(), MigrationError> {
    let condition = is_this_lock("l");
    let sql = format!("SELECT 1 AS one FROM pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND {condition}");
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.map(drop).ok_or_else(|| MigrationError::LockLost { name: purpose.to_owned() })
}

/// The condition that a row of pg_locks is this lock.
fn is_this_lock(row: &str) -> String {
    format!(
        "{row}.locktype = 'advisory' AND {row}.objsubid = 1
         AND {row}.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND ({row}.classid::bigint << 32 | {row}.objid::bigint) = {KEY}"
    )
}

async fn waiting_for(connect: &PgConnectOptions, pid: i32) -> Result<String, sqlx::Error> {
    let mut connection = connect.connect().await?;
    let row = sqlx::query(
        "SELECT coalesce(
             (SELECT 'locks of ' || string_agg(format('process %s (application %s)', b.pid, quote_literal(b.application_name)), ', ')
              FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(a.pid))),
             a.wait_event_type || ' ' || a.wait_event, 'nothing')
         FROM pg_stat_activity a WHERE a.pid = $1",
    )
    .bind(pid)
    .fetch_one(&mut connection)
    .await?;
    let text = row.try_get(0)?;
    connection.close().await?;
    Ok(text)
}

/// Opens a session and closes it.
pub(in crate::runner) async fn reach(connect: &PgConnectOptions, timeout: Duration) -> Result<(), DbErr> {
    // It has served its purpose, however it ends.
    let _ = session(connect, timeout).await?.close().await;
    Ok(())
}

/// Opens a session. A server that is there and has no session left, or is only starting, is asked again.
async fn session(connect: &PgConnectOptions, timeout: Duration) -> Result<PgConnection, DbErr> {
    let end = Instant::now() + timeout;
    let mut last = no_answer();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, connect.connect()).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(sqlx::Error::Database(refusal))) if refusal.is_transient_in_connect_phase() => {
                last = sqlx::Error::Database(refusal);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Ok(Err(error)) => return Err(connect_error(error)),
            Err(_) => return Err(connect_error(last)),
        }
    }
}

pub(super) fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}

pub(super) fn connect_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
