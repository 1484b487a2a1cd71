//! Transactions in which the database shows one tenant's rows and no others.

use super::session::{PooledSession, failed, prepared};
use super::{APP_ROLE, Access, Availability, Pool};
use crate::ids::TenantId;
use crate::metrics::{Metrics, Operation, OperationTimer};
use futures_util::TryStreamExt;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::sqlx::{self, AssertSqlSafe, Database, Executor, Postgres, SqlSafeStr};
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr,
    SqliteTransactionMode, Statement, StreamTrait, TransactionOptions, TransactionTrait,
};
use sqlx_core::transaction::TransactionManager;
use std::ops::DerefMut;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// How long a change that shares its transaction waits for another one's lock.
const PATIENCE: &str = "50ms";

/// How the driver counts a session's transactions.
type Counter = <Postgres as Database>::TransactionManager;

/// A transaction, rolled back unless it is committed.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
    availability: Availability,
    metrics: Metrics,
    /// Whether this part of it may have changed something, or ended the transaction by an error.
    changed: AtomicBool,
}

#[derive(Debug)]
enum Session {
    Postgres(Mutex<PostgresSession>),
    Sqlite(DatabaseTransaction),
}

impl Transaction {
    pub(super) async fn begin(pool: &Pool, tenant: TenantId, access: Access) -> Result<Self, DbErr> {
        let session = async {
            if pool.get_database_backend() == DbBackend::Postgres {
                let session = PostgresSession::begin(pool, tenant, access).await?;
                return Ok(Session::Postgres(Mutex::new(session)));
            }
            let options = TransactionOptions {
                // Else two that read first and write then would each wait for the other's end.
                sqlite_transaction_mode: (access != Access::Read).then_some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            let timer = pool.metrics.operation(Operation::Begin, "");
            let transaction = pool.begin_with_options(options).await;
            timer.end(&transaction);
            transaction.map(Session::Sqlite)
        };
        let session = pool.availability.unless_away(session).await?;
        let (availability, metrics) = (pool.availability.clone(), pool.metrics.clone());
        Ok(Self { session, availability, metrics, changed: AtomicBool::new(false) })
    }

    /// Where its process counts.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Begins a part of it, of which [`Transaction::is_unchanged_in_part`] speaks.
    pub(crate) fn begin_part(&self) {
        self.changed.store(false, Ordering::Relaxed);
    }

    /// Whether the part has done nothing that would have to be undone: it has only read, without an error, and each of its
    /// statements was waited for, to its last row.
    pub(crate) fn is_unchanged_in_part(&self) -> bool {
        !self.changed.load(Ordering::Relaxed)
    }

    /// Begins to measure a statement.
    fn time(&self, sql: &str) -> (Operation, OperationTimer<'_>) {
        let operation = Operation::of(sql);
        (operation, self.metrics.operation(operation, sql))
    }

    /// What a statement comes to.
    async fn run<T>(
        &self,
        (operation, timer): (Operation, OperationTimer<'_>),
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        // Also where nobody waits for its end.
        let before = self.changed.swap(true, Ordering::Relaxed);
        let outcome = self.availability.unless_away(work).await;
        timer.end(&outcome);
        // It changes nothing.
        if outcome.is_ok() && operation == Operation::Select {
            self.changed.store(before, Ordering::Relaxed);
        }
        outcome
    }

    /// Commits; returns once the database has done so.
    ///
    /// # Errors
    /// Where the database has not said that it has. The changes are rolled back then, unless the connection was lost
    /// meanwhile.
    pub async fn commit(self) -> Result<(), DbErr> {
        self.commit_shared().await
    }

    /// As [`Transaction::commit`], where others may still hold a reference, and do nothing more with it.
    pub(crate) async fn commit_shared(&self) -> Result<(), DbErr> {
        let commit = async {
            match &self.session {
                Session::Postgres(session) => session.lock().await.commit().await,
                // The driver's own commit releases a savepoint where its count of transactions is wrong, as
                // `may_serve_again` says, and commits nothing then. COMMIT ends the transaction whatever was counted, or
                // fails; BEGIN succeeds only where none is open any more. The empty one that it begins is for the driver
                // to roll back, which keeps count.
                Session::Sqlite(transaction) => transaction.execute_unprepared("COMMIT; BEGIN").await.map(drop),
            }
        };
        let timer = self.metrics.operation(Operation::Commit, "");
        let committed = self.availability.unless_away(commit).await;
        timer.end(&committed);
        committed?;
        self.availability.took_a_write();
        Ok(())
    }

    /// Hands the rows of a query to `take`, one after the other, until it wants no more.
    pub(crate) async fn each_row<E: From<DbErr>>(
        &self,
        query: Statement,
        take: impl FnMut(QueryResult) -> Result<bool, E>,
    ) -> Result<(), E> {
        let before = self.changed.swap(true, Ordering::Relaxed);
        let (_, timer) = self.time(&query.sql);
        let outcome = self.hand_rows(query, take).await;
        timer.end(&outcome);
        if outcome? {
            self.changed.store(before, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether they were handed on to the last one.
    async fn hand_rows<E: From<DbErr>>(
        &self,
        query: Statement,
        mut take: impl FnMut(QueryResult) -> Result<bool, E>,
    ) -> Result<bool, E> {
        match &self.session {
            Session::Postgres(session) => {
                let mut session = session.lock().await;
                let mut rows = session.connection()?.fetch(prepared(query));
                while let Some(row) =
                    self.availability.unless_away(async { rows.try_next().await.map_err(failed) }).await?
                {
                    if !take(row.into())? {
                        return Ok(false);
                    }
                }
            }
            Session::Sqlite(transaction) => {
                let mut rows = self.availability.unless_away(transaction.stream_raw(query)).await?;
                while let Some(row) = self.availability.unless_away(rows.try_next()).await? {
                    if !take(row)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match self.session {
            Session::Postgres(_) => DbBackend::Postgres,
            Session::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let timed = self.time(&statement.sql);
        let work = async {
            match &self.session {
                Session::Postgres(session) => {
                    let done = session.lock().await.connection()?.execute(prepared(statement)).await;
                    done.map(ExecResult::from).map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(error.into())))
                }
                Session::Sqlite(transaction) => transaction.execute_raw(statement).await,
            }
        };
        self.run(timed, work).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let timed = self.time(sql);
        let work = async {
            match &self.session {
                Session::Postgres(session) => {
                    let sql = sqlx::raw_sql(AssertSqlSafe(sql));
                    let done = session.lock().await.connection()?.execute(sql).await;
                    done.map(ExecResult::from).map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(error.into())))
                }
                Session::Sqlite(transaction) => transaction.execute_unprepared(sql).await,
            }
        };
        self.run(timed, work).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let timed = self.time(&statement.sql);
        let work = async {
            match &self.session {
                Session::Postgres(session) => {
                    let row = session.lock().await.connection()?.fetch_optional(prepared(statement)).await;
                    row.map(|row| row.map(QueryResult::from)).map_err(failed)
                }
                Session::Sqlite(transaction) => transaction.query_one_raw(statement).await,
            }
        };
        self.run(timed, work).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let timed = self.time(&statement.sql);
        let work = async {
            match &self.session {
                Session::Postgres(session) => {
                    let rows = session.lock().await.connection()?.fetch_all(prepared(statement)).await;
                    rows.map(|rows| rows.into_iter().map(QueryResult::from).collect()).map_err(failed)
                }
                Session::Sqlite(transaction) => transaction.query_all_raw(statement).await,
            }
        };
        self.run(timed, work).await
    }
}

/// A session of PostgreSQL within a transaction. sea-orm's own begins with BEGIN alone
/// (sea-orm 2.0.4, src/database/transaction.rs), which takes a round trip more.
#[derive(Debug)]
struct PostgresSession {
    /// `None` once it has gone back to the pool.
    session: Option<PooledSession>,
    /// Whether the driver knows of the transaction. It does not while it begins.
    begun: bool,
}

impl PostgresSession {
    /// Whatever role the session has, the transaction has [`APP_ROLE`], save to operate.
    async fn begin(pool: &Pool, tenant: TenantId, access: Access) -> Result<Self, DbErr> {
        let named =
            |first: &str| format!("SELECT {first}, set_config('app.current_tenant_id', '{tenant}', true); BEGIN");
        let role = format!("set_config('role', '{APP_ROLE}', true)");
        let statements = match access {
            Access::Read | Access::Write => named(&role),
            Access::Share => named(&format!("{role}, set_config('lock_timeout', '{PATIENCE}', true)")),
            Access::Operate => named("set_config('app.directory', 'on', true)"),
            // After a query, BEGIN could not change the isolation any more.
            Access::Snapshot => format!(
                "SET LOCAL app.directory = 'on'; SET LOCAL app.current_tenant_id = '{tenant}';
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            ),
        };
        // One round trip, also through a pooler that keeps nothing between transactions. The statements of a message are one
        // transaction, which BEGIN, as the last of them, keeps open (postgresql.org/docs/current/protocol-flow.html, "Multiple
        // Statements in a Simple Query"). So nothing is left open where the others fail.
        let mut this = Self { session: Some(pool.acquire().await?), begun: false };
        let statements = AssertSqlSafe(statements).into_sql_str();
        let begin = async |session: &mut _| Counter::begin(session, Some(statements)).await;
        let timer = pool.metrics.operation(Operation::Begin, "");
        let answer = this.session()?.first(&pool.availability, begin).await;
        timer.end(&answer);
        if let Err(error) = answer {
            this.session = None;
            return Err(error);
        }
        this.begun = true;
        Ok(this)
    }

    fn session(&mut self) -> Result<&mut PooledSession, DbErr> {
        self.session.as_mut().ok_or(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))
    }

    fn connection(&mut self) -> Result<&mut sqlx::PgConnection, DbErr> {
        self.session().map(DerefMut::deref_mut)
    }

    async fn commit(&mut self) -> Result<(), DbErr> {
        Counter::commit(self.connection()?).await.map_err(failed)?;
        self.session = None;
        Ok(())
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        if self.begun {
            // Sent when the session goes back to the pool.
            Counter::start_rollback(&mut session);
            return;
        }
        // BEGIN is sent, and its answer not read: the driver counts no transaction and would roll none back
        // (launchbadge/sqlx, sqlx-postgres/src/transaction.rs), and whoever used the session next would never commit.
        tokio::spawn(session.roll_back());
    }
}
