//! Detects a connection pooler in transaction mode, behind which a session-level lock does not hold.

use super::lock::{connect_error, no_answer};
use crate::error::MigrationError;
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnection, Postgres};
use sea_orm_migration::sea_orm::sqlx::{self, Connection, Executor, PgPool, Row};
use std::time::Duration;

/// How often both connections are asked.
const ROUNDS: usize = 3;

/// Asks two connections in turn which server process serves them; returns the process of `pool`. Direct connections
/// each keep their own process. A pooler in transaction mode gives both the same one, or a different one each time.
///
/// Fails after `timeout`: a pooler may keep a question for as long as it has no session for it
/// (pgbouncer.org/config.html, "query_wait_timeout").
pub(super) async fn reject_pooler(
    pool: &PgPool,
    other: PgConnection,
    timeout: Duration,
) -> Result<i32, MigrationError> {
    let answered = tokio::time::timeout(timeout, own_process(pool, other)).await;
    let process = answered.unwrap_or_else(|_| Err(no_answer())).map_err(connect_error)?;
    process.ok_or(MigrationError::Pooler)
}

/// The process of `pool`, if it is its own.
async fn own_process(pool: &PgPool, mut other: PgConnection) -> Result<Option<i32>, sqlx::Error> {
    let first = (backend_pid(pool).await?, backend_pid(&mut other).await?);
    let mut direct = first.0 != first.1;
    for round in 1..ROUNDS {
        // The other one first every second time: a pooler that has two sessions and takes them in turn (pgbouncer.org/config.html,
        // "server_round_robin") would give each connection the same one.
        let pids = if round % 2 == 1 {
            let second = backend_pid(&mut other).await?;
            (backend_pid(pool).await?, second)
        } else {
            (backend_pid(pool).await?, backend_pid(&mut other).await?)
        };
        direct = direct && pids == first;
    }
    // It has served its purpose, however it ends.
    let _ = other.close().await;
    Ok(direct.then_some(first.0))
}

async fn backend_pid<'a>(session: impl Executor<'a, Database = Postgres>) -> Result<i32, sqlx::Error> {
    session.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)
}
