//! A session of the pool with PostgreSQL, for one statement or one transaction.

use super::{Availability, Trouble};
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Executor, PgConnection, PgPool, Postgres};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, Statement, Values};
use sea_query_sqlx::SqlxValues;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a session may take to answer on its way back to the pool. The driver waits without end there, and keeps the
/// session's place (sqlx-core 0.9.0, src/pool/connection.rs, `return_to_pool`): until TCP gives up, a quarter of an hour where
/// nothing answers.
const RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// A session of the pool. Goes back to the pool with this value, or is closed.
#[derive(Debug)]
pub(super) struct PooledSession {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl PooledSession {
    pub(super) async fn acquire(pool: &PgPool) -> Result<Self, DbErr> {
        let connection = pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            _ => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
        })?;
        Ok(Self { connection, ended: false })
    }

    /// What the session's first statement comes to. If it gets no answer though a new session does, this session counts as
    /// ended.
    pub(super) async fn first<T>(
        &mut self,
        availability: &Availability,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, DbErr> {
        let outcome = availability.unless_silent(work(&mut self.connection)).await.map_err(failed);
        self.ended = outcome.as_ref().is_err_and(Trouble::session_ended);
        outcome
    }

    /// Ends a transaction of which the driver knows nothing; closes the session where that fails.
    pub(super) async fn roll_back(mut self) {
        let done = tokio::time::timeout(RETURN_TIMEOUT, self.connection.execute("ROLLBACK")).await;
        self.ended = !matches!(done, Ok(Ok(_)));
    }
}

impl Deref for PooledSession {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PooledSession {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        if self.ended {
            self.connection.close_on_drop();
        } else if let Ok(runtime) = Handle::try_current() {
            // Where it has no answer in time, it is dropped, and so closed.
            runtime.spawn(tokio::time::timeout(RETURN_TIMEOUT, self.connection.return_to_pool()));
        }
    }
}

/// A statement that the driver prepares once in each session.
pub(super) fn prepared(statement: Statement) -> Query<'static, Postgres, SqlxValues> {
    let Statement { sql, values, .. } = statement;
    sqlx::query_with(AssertSqlSafe(sql), SqlxValues(values.unwrap_or(Values(Vec::new()))))
}

pub(super) fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}
