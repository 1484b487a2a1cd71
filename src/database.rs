//! Opens the database: a pool for requests, what migrations connect with, and transactions that belong to one tenant.

mod availability;
mod cause;
mod new_session;
mod pooler;
mod probe;
mod session;
mod transaction;
mod trouble;

pub use availability::Availability;
pub use pooler::Route;
pub use probe::Probe;
pub use transaction::Transaction;
pub use trouble::Trouble;

use crate::config::{DatabaseUrl, Settings};
use crate::ids::TenantId;
use crate::metrics::{Metrics, Operation};
use crate::traces::Traces;
use backon::{ConstantBuilder, Retryable};
use bulkhead_migrator::Target;
pub(crate) use bulkhead_migrator::{code, text};
pub(crate) use cause::cause;
use futures_util::future::join_all;
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Connection, Database, Executor, Postgres, Sqlite};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use session::{PooledSession, prepared};
use std::ops::Deref;
use std::pin::pin;
use std::time::Duration;
use tracing::log::LevelFilter;

/// The role that run-time transactions take on (PostgreSQL); migrations make it.
pub const APP_ROLE: &str = "bulkhead_app";

/// A statement slower than this is a warning in the log (its text, never its values).
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// How many rows of SQLite's the driver makes before they are asked for. They may be large, and each connection has as many.
const SQLITE_ROWS_AHEAD: usize = 4;

/// How long a SQLite writer waits for another one.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a start waits for the connections that it opens ahead of requests.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// The pool that requests use. Opens no connection yet: the first use does, so that the server can answer, and say
/// that it is not ready, while the database is down. Needs a runtime.
#[must_use]
pub fn pool(settings: &Settings) -> Pool {
    let metrics = if settings.metrics_port.is_some() { Metrics::on() } else { Metrics::default() };
    match &settings.database {
        DatabaseUrl::Postgres(options) => {
            let options = quiet(options.as_ref().clone().application_name("bulkhead"));
            let availability = Availability::watched(options.clone());
            let fresh = availability.clone();
            let pool = sessions(settings, pool_options(settings))
                // A round trip for each use. `Pool::in_another_session` notices sessions that have ended.
                .test_before_acquire(false)
                // Compares two numbers; the database is asked nothing.
                .before_acquire(move |_, session| {
                    let usable = fresh.is_fresh(session.age);
                    Box::pin(async move { Ok(usable) })
                })
                .connect_lazy_with(options);
            Pool { inner: pool.into(), availability, metrics }
        }
        DatabaseUrl::Sqlite(options) => {
            let options = sqlite(options).foreign_keys(true).busy_timeout(SQLITE_BUSY_TIMEOUT);
            let pool = DatabaseConnection::from(sqlite_pool_options(settings).connect_lazy_with(options));
            Pool { metrics, ..pool.into() }
        }
    }
}

/// Turns a new SQLite file to WAL mode before several connections open it. The change needs the file for itself, and fails at
/// once where another connection reads it (sqlite.org/pragma.html, "PRAGMA journal_mode"). An error is left to the first use
/// of the pool, which reports it.
pub(crate) async fn initialize_sqlite(settings: &Settings) {
    if let DatabaseUrl::Sqlite(options) = &settings.database
        && let Ok(connection) = sqlite(options).connect().await
    {
        let _ = connection.close().await;
    }
}

/// Sessions as requests have them.
fn sessions(settings: &Settings, options: PoolOptions<Postgres>) -> PoolOptions<Postgres> {
    let timeout = settings.database_statement_timeout.as_millis();
    // Not as start-up parameters, which PgBouncer refuses. The role is there once the schema is.
    let after_connect = format!(
        "SET statement_timeout = {timeout};
         SET default_transaction_isolation = 'read committed';
         SELECT set_config('role', rolname, false) FROM pg_roles
         WHERE rolname = '{APP_ROLE}' AND pg_has_role(session_user, oid, 'MEMBER')
             AND NOT EXISTS (
                 SELECT FROM unnest(array['seaql_migrations', 'seaql_migrations_meta']) AS history
                 WHERE has_table_privilege(oid, to_regclass(history)::oid, 'SELECT') IS NOT TRUE)"
    );
    options.after_connect(move |connection, _| {
        let statement = sqlx::raw_sql(AssertSqlSafe(after_connect.clone()));
        Box::pin(async move { statement.execute(connection).await.map(drop) })
    })
}

/// The pool that requests use. Fails at once while the database is known to be away. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: DatabaseConnection,
    availability: Availability,
    metrics: Metrics,
}

impl From<DatabaseConnection> for Pool {
    /// A pool of which nobody knows whether its database is there, and that measures nothing.
    fn from(inner: DatabaseConnection) -> Self {
        Self { inner, availability: Availability::default(), metrics: Metrics::default() }
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reading.
    Read,
    /// Reading and writing, as the API may.
    Write,
    /// As [`Access::Write`], for several changes: one that meets another transaction's lock fails soon (PostgreSQL), so that
    /// it does not hold up the others.
    Share,
    /// Reading and writing with all the rights of the connection's own role, and a look at which tenants there are: for
    /// the command line.
    Operate,
    /// As [`Access::Operate`], only reading, and all of it as it was at one moment (PostgreSQL; on SQLite as to operate, which
    /// lets nobody else write meanwhile).
    Snapshot,
}

/// Begins a transaction in which the database shows this tenant's rows and no others (PostgreSQL; on SQLite queries
/// must name the tenant themselves). Whatever role the connection has, the transaction has [`APP_ROLE`], save to
/// operate.
pub async fn begin(pool: &DatabaseConnection, tenant: TenantId, access: Access) -> Result<Transaction, DbErr> {
    Pool::from(pool.clone()).begin(tenant, access).await
}

impl Pool {
    /// What is known of the database.
    #[must_use]
    pub fn availability(&self) -> &Availability {
        &self.availability
    }

    /// What it measures, and whatever else the process counts.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The same, with spans for what it is asked for.
    #[must_use]
    pub fn traced(self, traces: Option<Traces>) -> Self {
        Self { metrics: self.metrics.with_traces(traces), ..self }
    }

    /// How many connections it has, and how many of them nobody uses.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let (size, idle) = if self.inner.get_database_backend() == DbBackend::Postgres {
            let pool = self.inner.get_postgres_connection_pool();
            (pool.size(), pool.num_idle())
        } else {
            let pool = self.inner.get_sqlite_connection_pool();
            (pool.size(), pool.num_idle())
        };
        (usize::try_from(size).unwrap_or(usize::MAX), idle)
    }

    /// How many connections it has at most.
    pub(crate) fn max_connections(&self) -> usize {
        let connections = match self.inner.get_database_backend() {
            DbBackend::Postgres => self.inner.get_postgres_connection_pool().options().get_max_connections(),
            _ => self.inner.get_sqlite_connection_pool().options().get_max_connections(),
        };
        usize::try_from(connections).unwrap_or(usize::MAX)
    }

    /// Whether a connection to PostgreSQL is free, or one more may be opened: then nobody waits for one.
    pub(crate) fn has_spare(&self) -> bool {
        let pool = self.inner.get_postgres_connection_pool();
        pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections()
    }

    /// Opens connections to PostgreSQL until there are so many, or the pool has no more. Whoever needs one reports why it
    /// cannot be had.
    pub(crate) async fn open(&self, connections: u32) {
        if self.inner.get_database_backend() != DbBackend::Postgres {
            return;
        }
        let pool = self.inner.get_postgres_connection_pool();
        let connections = connections.min(pool.options().get_max_connections());
        // All at once, since each is a handshake; and held until all are there, since the pool hands out what is idle.
        let opening = join_all((0..connections).map(|_| pool.acquire()));
        let _ = tokio::time::timeout(OPEN_TIMEOUT, opening).await;
    }

    /// A session with PostgreSQL.
    async fn acquire(&self) -> Result<PooledSession, DbErr> {
        let session = pin!(PooledSession::acquire(self.inner.get_postgres_connection_pool()));
        self.metrics.connection(session).await
    }

    /// A session for one statement; `None` with SQLite.
    async fn session(&self) -> Result<Option<PooledSession>, DbErr> {
        if self.inner.get_database_backend() != DbBackend::Postgres {
            return Ok(None);
        }
        self.acquire().await.map(Some)
    }

    /// Closes every session; returns once that is done.
    pub async fn close(self) -> Result<(), DbErr> {
        self.inner.close().await
    }

    /// What `work` comes to; it is done again in another session where its own turns out to have ended. Sessions are not asked
    /// before use whether they are still there, so this is how a restart of the database is noticed. `work` must be one
    /// that may be done twice.
    pub(crate) async fn in_another_session<T, F>(&self, work: impl Fn() -> F) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        if self.inner.get_database_backend() != DbBackend::Postgres {
            return work().await;
        }
        // All sessions of the pool may have ended.
        let sessions = self.inner.get_postgres_connection_pool().options().get_max_connections();
        let at_once = ConstantBuilder::new().with_delay(Duration::ZERO).with_max_times(sessions as usize);
        work.retry(at_once).when(Trouble::session_ended).await
    }

    /// As [`begin`].
    pub async fn begin(&self, tenant: TenantId, access: Access) -> Result<Transaction, DbErr> {
        // Nothing is done yet, so it may be done twice.
        self.in_another_session(|| Box::pin(Transaction::begin(self, tenant, access))).await
    }
}

impl Deref for Pool {
    type Target = DatabaseConnection;

    fn deref(&self) -> &DatabaseConnection {
        &self.inner
    }
}

#[async_trait]
impl ConnectionTrait for Pool {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let timer = self.metrics.operation(Operation::of(&statement.sql), &statement.sql);
        let work = async {
            let Some(mut session) = self.session().await? else { return self.inner.execute_raw(statement).await };
            let done = session.first(&self.availability, async |session| session.execute(prepared(statement)).await);
            done.await.map(ExecResult::from)
        };
        let outcome = self.availability.unless_away(work).await;
        timer.end(&outcome);
        outcome
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let timer = self.metrics.operation(Operation::of(sql), sql);
        let work = async {
            let Some(mut session) = self.session().await? else { return self.inner.execute_unprepared(sql).await };
            let statements = sqlx::raw_sql(AssertSqlSafe(sql));
            let done = session.first(&self.availability, async |session| session.execute(statements).await);
            done.await.map(ExecResult::from)
        };
        let outcome = self.availability.unless_away(work).await;
        timer.end(&outcome);
        outcome
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let timer = self.metrics.operation(Operation::of(&statement.sql), &statement.sql);
        let work = async {
            let Some(mut session) = self.session().await? else { return self.inner.query_one_raw(statement).await };
            let row =
                session.first(&self.availability, async |session| session.fetch_optional(prepared(statement)).await);
            Ok(row.await?.map(QueryResult::from))
        };
        let outcome = self.availability.unless_away(work).await;
        timer.end(&outcome);
        outcome
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let timer = self.metrics.operation(Operation::of(&statement.sql), &statement.sql);
        let work = async {
            let Some(mut session) = self.session().await? else { return self.inner.query_all_raw(statement).await };
            let rows = session.first(&self.availability, async |session| session.fetch_all(prepared(statement)).await);
            Ok(rows.await?.into_iter().map(QueryResult::from).collect())
        };
        let outcome = self.availability.unless_away(work).await;
        timer.end(&outcome);
        outcome
    }
}

/// Whether PostgreSQL says that a connection's role may not take on [`APP_ROLE`], or that there is no such role.
#[must_use]
pub fn may_not_take_role(error: &DbErr) -> bool {
    // insufficient_privilege, invalid_parameter_value (postgresql.org/docs/current/errcodes-appendix.html).
    matches!(code(error).as_deref(), Some("42501" | "22023"))
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

/// A connection for commands, where migrations run. Where the database cannot be reached it fails at once, with the cause.
pub async fn migration_connection(settings: &Settings) -> Result<DatabaseConnection, DbErr> {
    let target = migration_target(settings);
    target.reach(settings.database_acquire_timeout).await?;
    Ok(match target {
        Target::Postgres(options) => {
            pool_options::<Postgres>(settings).max_connections(1).connect_lazy_with(*options).into()
        }
        Target::Sqlite(options) => sqlite_pool_options(settings).max_connections(1).connect_lazy_with(*options).into(),
    })
}

/// A connection to the same database that changes nothing in it: to look at a restored copy, which may be evidence.
pub async fn copy_connection(settings: &Settings) -> Result<DatabaseConnection, DbErr> {
    match &settings.migration_database {
        DatabaseUrl::Postgres(options) => {
            let options = quiet(options.as_ref().clone().application_name("bulkhead backup verify"));
            // A pooler refuses this rather than giving the session to others, who would not know why they cannot write.
            let options = options.options([("default_transaction_read_only", "on")]);
            Target::Postgres(Box::new(options.clone())).reach(settings.database_acquire_timeout).await?;
            Ok(pool_options::<Postgres>(settings).max_connections(1).connect_lazy_with(options).into())
        }
        DatabaseUrl::Sqlite(options) => {
            let mut log = options.get_filename().as_os_str().to_owned();
            log.push("-wal");
            // What stands in the log alone is a part of the copy. Without one the file is all there is, and SQLite need make no
            // files beside it, which takes the right to write there (sqlite.org/wal.html, "Read-Only Databases").
            let is_whole = std::fs::metadata(log).map_or(true, |log| log.len() == 0);
            let options = quiet(options.as_ref().clone()).row_buffer_size(SQLITE_ROWS_AHEAD);
            let options = options.create_if_missing(false).read_only(true).immutable(is_whole);
            Ok(sqlite_pool_options(settings).max_connections(1).connect_lazy_with(options).into())
        }
    }
}

fn pool_options<DB: Database>(settings: &Settings) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(settings.database_max_connections)
        .acquire_timeout(settings.database_acquire_timeout)
}

fn sqlite_pool_options(settings: &Settings) -> PoolOptions<Sqlite> {
    pool_options(settings).after_release(|connection, _| Box::pin(async { Ok(may_serve_again(connection).await) }))
}

/// Whether neither SQLite nor the driver takes the connection to be within a transaction. Where that is not certain, it is
/// to be closed, which rolls back.
///
/// SQLite rolls back by itself where a disk is full, fails, or memory is short
/// (sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction"). The driver then goes on counting one
/// transaction, since its own ROLLBACK fails (launchbadge/sqlx, sqlx-sqlite/src/connection/worker.rs; issue 4031 is that
/// the count is its own). Its next transaction is a savepoint, the first of which begins a transaction; rolling back to a
/// savepoint does not end that (issue 3634), and from then on nothing is committed.
async fn may_serve_again(connection: &mut SqliteConnection) -> bool {
    // Whatever was queued is done before: a transaction that is dropped leaves its ROLLBACK there.
    let outside = connection.execute("BEGIN; ROLLBACK").await;
    let sound = outside.is_ok() && !connection.is_in_transaction();
    if !sound {
        let error = outside.err().map(|error| error.to_string());
        tracing::warn!(error, "closing a connection to SQLite whose last transaction did not end as it should");
    }
    sound
}

/// In WAL mode only FULL syncs at every commit (sqlite.org/pragma.html, "PRAGMA synchronous"): with NORMAL, a power cut
/// could take what was answered as done.
fn sqlite(options: &SqliteConnectOptions) -> SqliteConnectOptions {
    let options = quiet(options.clone()).row_buffer_size(SQLITE_ROWS_AHEAD);
    options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
}

fn quiet<O: ConnectOptions>(options: O) -> O {
    options.log_statements(LevelFilter::Trace).log_slow_statements(LevelFilter::Warn, SLOW_STATEMENT)
}

#[cfg(test)]
mod tests;
