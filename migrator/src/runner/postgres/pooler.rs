//! Detects a connection pooler in transaction mode, behind which a session-level lock does not hold.

use super::lock::connect_error;
use crate::error::MigrationError;
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm_migration::sea_orm::sqlx::{self, PgPool, Row};
use std::time::Duration;

/// How often both connections are asked.
const ROUNDS: usize = 3;

/// Asks two connections in turn which server process serves them; returns the process of `pool`. Direct connections
/// each keep their own process. A pooler in transaction mode gives both the same one, or a different one each time.
pub(super) async fn reject_pooler(
    pool: &PgPool,
    connect: &PgConnectOptions,
    timeout: Duration,
) -> Result<i32, MigrationError> {
    // A pool, because it tries again when the server is full or starting.
    let other = PgPoolOptions::new().max_connections(1).acquire_timeout(timeout).connect_with(connect.clone());
    let other = other.await.map_err(connect_error)?;
    let first = (backend_pid(pool).await?, backend_pid(&other).await?);
    let mut direct = first.0 != first.1;
    for round in 1..ROUNDS {
        // The other one first every second time: a pooler that has two sessions and takes them in turn (pgbouncer.org/config.html,
        // "server_round_robin") would give each connection the same one.
        let pids = if round % 2 == 1 {
            let second = backend_pid(&other).await?;
            (backend_pid(pool).await?, second)
        } else {
            (backend_pid(pool).await?, backend_pid(&other).await?)
        };
        direct = direct && pids == first;
    }
    other.close().await;
    if direct { Ok(first.0) } else { Err(MigrationError::Pooler) }
}

async fn backend_pid(pool: &PgPool) -> Result<i32, MigrationError> {
    let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(pool).await.map_err(connect_error)?;
    Ok(row.try_get(0).map_err(connect_error)?)
}
