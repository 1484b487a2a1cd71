//! PostgreSQL: a session-level advisory lock on a connection of its own, on which the migrations run too, so that
//! whoever migrates holds the lock. It is let go by closing the connection, on every path.

use super::{Changes, Nothing, Options, Progress, Repair, Reporting, Runner, failed, report, transactional};
use crate::catalogue::DescribedMigration;
use crate::error::{Left, MigrationError, is_lock_timeout};
use crate::history;
use crate::state::{Standing, State};
use backon::{ExponentialBuilder, Retryable};
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm_migration::sea_orm::sqlx::{self, ConnectOptions, Connection, Row};
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, RuntimeErr, Statement, TransactionTrait,
};
use std::time::{Duration, Instant};

/// The lock's key: one per schema and history table, so that what shares a database does not share the lock. The
/// server hashes, so that all contenders agree.
const KEY: &str = "hashtextextended('sea-orm-migration/' || coalesce(current_schema(), '') || '/seaql_migrations', 0)";

/// How often a waiting process asks again; each adds up to as much again, so that many do not ask at once.
const POLL: Duration = Duration::from_millis(50);

/// How often a migration that does not get its table locks is tried.
const TRIES: usize = 10;

pub(super) async fn up(runner: &Runner, options: &PgConnectOptions, limit: usize) -> Result<Changes, MigrationError> {
    let session = Session::open(runner, options).await?;
    let done = async {
        let state = runner.state(&session.connection).await?;
        state.sound_if_nothing_runs(runner.options.leniency)?;
        // The lock comes before the first change, and what is to do is read again under it.
        if state.is_done() || !session.lock_or_find_it_done(runner).await? {
            return Ok(Changes::default());
        }
        history::install(&session.connection).await?;
        let entries = history::read(&session.connection).await?.unwrap_or_default();
        history::adopt(&session.connection, runner.migrations.iter(), &entries).await?;
        let state = State::new(&runner.migrations, DbBackend::Postgres, &Some(entries));
        state.sound(runner.options.leniency)?;
        let mut changes = Changes::default();
        for migration in runner.select(&state.pending()).take(limit) {
            let name = migration.name();
            (runner.options.observer)(Progress::Applying(name.to_owned()));
            tracing::info!(migration = name, "applying");
            let started = Instant::now();
            let _reporting = session.report(name, options);
            session.run(migration, Direction::Up, &runner.options).await?;
            tracing::info!(migration = name, duration_ms = started.elapsed().as_millis(), "applied");
            changes.applied.push(name.to_owned());
        }
        Ok(changes)
    }
    .await;
    session.close().await;
    done
}

pub(super) async fn revert(
    runner: &Runner,
    options: &PgConnectOptions,
    steps: usize,
    uninstall: bool,
) -> Result<Vec<String>, MigrationError> {
    let session = Session::open(runner, options).await?;
    let done = async {
        if history::read(&session.connection).await?.is_none() {
            return Ok(Vec::new());
        }
        session.lock(runner).await?;
        history::install(&session.connection).await?;
        let state = runner.state(&session.connection).await?;
        state.revertible()?;
        let mut reverted = Vec::new();
        for migration in runner.select(&state.names(Standing::Applied)).rev().take(steps) {
            let _reporting = session.report(migration.name(), options);
            session.run(migration, Direction::Down, &runner.options).await?;
            reverted.push(migration.name().to_owned());
        }
        if uninstall {
            history::uninstall(&session.connection).await?;
        }
        Ok(reverted)
    }
    .await;
    session.close().await;
    done
}

pub(super) async fn drop_everything(runner: &Runner, options: &PgConnectOptions) -> Result<(), MigrationError> {
    locked(runner, options, async |transaction| Ok(Nothing::fresh(transaction).await?)).await
}

pub(super) async fn repair(
    runner: &Runner,
    options: &PgConnectOptions,
    migration: &dyn DescribedMigration,
    truth: Repair,
) -> Result<(), MigrationError> {
    locked(runner, options, async |transaction| runner.repair_within(transaction, migration, truth).await).await
}

/// Does `work` in one transaction under the lock.
async fn locked<T>(
    runner: &Runner,
    options: &PgConnectOptions,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, MigrationError>,
) -> Result<T, MigrationError> {
    let session = Session::open(runner, options).await?;
    let done = async {
        session.lock(runner).await?;
        let transaction = session.begin("the change", &runner.options).await?;
        let done = work(&transaction).await?;
        transaction.commit().await?;
        Ok(done)
    }
    .await;
    session.close().await;
    done
}

/// The one session that locks and migrates.
struct Session {
    /// A pool of one. Should its connection break, the next use would open another, without the lock: hence the
    /// check in [`Session::begin`].
    connection: DatabaseConnection,
    process: i32,
}

impl Session {
    async fn open(runner: &Runner, options: &PgConnectOptions) -> Result<Self, MigrationError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(runner.options.connect_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await
            .map_err(connect_error)?;
        let process = refuse_a_pooler(&pool, options, runner.options.connect_timeout).await?;
        // From 14 on the server notices within half a second that a killed client is gone, also while a statement
        // runs, and frees the lock.
        sqlx::raw_sql(
            "SELECT set_config('client_connection_check_interval', '500', false)
             WHERE current_setting('server_version_num')::int >= 140000",
        )
        .execute(&pool)
        .await
        .map_err(connect_error)?;
        Ok(Self { connection: pool.into(), process })
    }

    async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the migration connection did not close cleanly");
        }
    }

    /// Waits for the lock.
    async fn lock(&self, runner: &Runner) -> Result<(), MigrationError> {
        self.poll(runner, async || Ok(false)).await.map(drop)
    }

    /// Waits for the lock, or until whoever holds it has left nothing to do: then `false`.
    async fn lock_or_find_it_done(&self, runner: &Runner) -> Result<bool, MigrationError> {
        self.poll(runner, async || Ok(runner.state(&self.connection).await?.is_done())).await
    }

    /// Asks for the lock again and again, each time in a transaction of its own. Waiting inside the database would
    /// hold a snapshot, for whose end CREATE INDEX CONCURRENTLY in the holder would wait in turn.
    async fn poll(&self, runner: &Runner, done: impl AsyncFn() -> Result<bool, DbErr>) -> Result<bool, MigrationError> {
        let started = Instant::now();
        let mut said = false;
        loop {
            let ask = format!("SELECT pg_try_advisory_lock({KEY}) AS taken");
            if self.ask::<bool>(&ask, "taken").await? == Some(true) {
                return Ok(true);
            }
            if done().await? {
                return Ok(false);
            }
            let waited = started.elapsed();
            if waited >= runner.options.lock_timeout {
                return Err(MigrationError::LockTimeout { waited, holder: self.holder().await? });
            }
            if !said {
                said = true;
                (runner.options.observer)(Progress::WaitingForLock);
                tracing::info!(holder = self.holder().await?, "waiting for another process to finish its migrations");
            }
            tokio::time::sleep(POLL + POLL.mul_f64(fastrand::f64())).await;
        }
    }

    async fn ask<T: sea_orm::TryGetable>(&self, sql: &str, column: &str) -> Result<Option<T>, DbErr> {
        let row = self.connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
        row.map(|row| row.try_get("", column)).transpose()
    }

    /// Names the session that holds the lock, for whoever must decide whether to end it.
    async fn holder(&self) -> Result<String, DbErr> {
        let sql = format!(
            "SELECT format('process %s of the database server, application %s, for %s s', a.pid,
                 quote_literal(a.application_name), round(extract(epoch FROM now() - a.backend_start))) AS holder
             FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE l.granted AND {}",
            this_lock("l")
        );
        Ok(self.ask(&sql, "holder").await?.unwrap_or_else(|| "a process that has just ended".to_owned()))
    }

    /// Begins a transaction in which this session is known to hold the lock.
    async fn begin(&self, name: &str, options: &Options) -> Result<DatabaseTransaction, MigrationError> {
        let transaction = self.connection.begin().await?;
        still_locked(&transaction, name).await?;
        let settings = format!(
            "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
            options.ddl_lock_timeout.as_millis(),
            options.statement_timeout.as_millis()
        );
        transaction.execute_unprepared(&settings).await?;
        Ok(transaction)
    }

    /// Applies or reverts one migration, the way it asks for.
    async fn run(
        &self,
        migration: &dyn DescribedMigration,
        direction: Direction,
        options: &Options,
    ) -> Result<(), MigrationError> {
        if transactional(migration, DbBackend::Postgres) {
            self.run_in_a_transaction(migration, direction, options).await
        } else {
            self.run_outside_a_transaction(migration, direction, options).await
        }
    }

    /// Runs and records a migration in one transaction; tries again, from its beginning, when it did not get a
    /// table's lock in time.
    async fn run_in_a_transaction(
        &self,
        migration: &dyn DescribedMigration,
        direction: Direction,
        options: &Options,
    ) -> Result<(), MigrationError> {
        let name = migration.name();
        let attempt = async || {
            let transaction = self.begin(name, options).await?;
            let manager = SchemaManager::new(&transaction);
            direction.of(migration, &manager).await.map_err(|cause| failed(migration, cause, Left::Nothing))?;
            match direction {
                Direction::Up => {
                    history::begin(&transaction, migration).await?;
                    history::finish(&transaction, name).await?;
                }
                Direction::Down => history::forget(&transaction, name).await?,
            }
            transaction.commit().await?;
            Ok(())
        };
        let blocked =
            |error: &MigrationError| matches!(error, MigrationError::Failed { cause, .. } if is_lock_timeout(cause));
        let pauses = ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(500));
        let pauses = pauses.with_max_delay(Duration::from_secs(5)).with_max_times(TRIES - 1);
        let done = attempt
            .retry(pauses)
            .when(blocked)
            .notify(|_, pause| {
                tracing::warn!(
                    migration = name,
                    pause_ms = pause.as_millis(),
                    "another session holds a table for longer than {} s; rolled back, to be tried again",
                    options.ddl_lock_timeout.as_secs()
                );
            })
            .await;
        done.map_err(|error| {
            if blocked(&error) { MigrationError::Blocked { name: name.to_owned(), tries: TRIES } } else { error }
        })
    }

    /// Runs a migration that PostgreSQL takes outside transactions only. Its name is in one half of the history
    /// alone meanwhile, by which it counts as interrupted until it has ended.
    async fn run_outside_a_transaction(
        &self,
        migration: &dyn DescribedMigration,
        direction: Direction,
        options: &Options,
    ) -> Result<(), MigrationError> {
        still_locked(&self.connection, migration.name()).await?;
        // CREATE INDEX CONCURRENTLY waits for old transactions, and blocks nobody while it does. Anything else
        // may hold up others while it waits.
        let (lock_timeout, left) = if migration.rerunnable() {
            (Duration::ZERO, Left::Cleared)
        } else {
            (options.ddl_lock_timeout, Left::Dirty)
        };
        let settings = format!(
            "SET lock_timeout = {}; SET statement_timeout = {}",
            lock_timeout.as_millis(),
            options.statement_timeout.as_millis()
        );
        self.connection.execute_unprepared(&settings).await?;
        history::begin(&self.connection, migration).await?;
        if matches!(direction, Direction::Down) {
            history::unfinish(&self.connection, migration.name()).await?;
        }
        let manager = SchemaManager::new(&self.connection);
        direction.of(migration, &manager).await.map_err(|cause| failed(migration, cause, left))?;
        match direction {
            Direction::Up => history::finish(&self.connection, migration.name()).await?,
            Direction::Down => history::forget(&self.connection, migration.name()).await?,
        }
        Ok(())
    }

    /// Reports on a migration, and what it waits for as another session sees it.
    fn report(&self, name: &str, options: &PgConnectOptions) -> Reporting {
        let (options, process) = (options.clone(), self.process);
        report(name, move || {
            let options = options.clone();
            async move { waiting_for(&options, process).await.unwrap_or_else(|error| format!("unknown: {error}")) }
        })
    }
}

/// Which way a migration runs.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    async fn of(self, migration: &dyn DescribedMigration, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        match self {
            Self::Up => migration.up(manager).await,
            Self::Down => migration.down(manager).await,
        }
    }
}

/// The condition that a row of pg_locks is this lock.
fn this_lock(row: &str) -> String {
    format!(
        "{row}.locktype = 'advisory' AND {row}.objsubid = 1
         AND {row}.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND ({row}.classid::bigint << 32 | {row}.objid::bigint) = {KEY}"
    )
}

async fn still_locked(connection: &impl ConnectionTrait, name: &str) -> Result<(), MigrationError> {
    let sql =
        format!("SELECT 1 AS one FROM pg_locks l WHERE l.granted AND l.pid = pg_backend_pid() AND {}", this_lock("l"));
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.map(drop).ok_or_else(|| MigrationError::LockLost { name: name.to_owned() })
}

/// Two connections, asked in turn which server process serves them. Direct ones each keep a process of their own; a
/// pooler in transaction mode hands them the same one, or a different one each time.
async fn refuse_a_pooler(
    pool: &sqlx::PgPool,
    options: &PgConnectOptions,
    timeout: Duration,
) -> Result<i32, MigrationError> {
    const ASK: &str = "SELECT pg_backend_pid()";
    // A pool, for its patience with a server that is full or starting.
    let other = PgPoolOptions::new().max_connections(1).acquire_timeout(timeout).connect_with(options.clone());
    let other = other.await.map_err(connect_error)?;
    let mut first = None;
    for _ in 0..3 {
        let row = sqlx::raw_sql(ASK).fetch_one(pool).await.map_err(connect_error)?;
        let mine: i32 = row.try_get(0).map_err(connect_error)?;
        let row = sqlx::raw_sql(ASK).fetch_one(&other).await.map_err(connect_error)?;
        let others: i32 = row.try_get(0).map_err(connect_error)?;
        if mine == others || first.is_some_and(|first| first != (mine, others)) {
            return Err(MigrationError::Pooler);
        }
        first = Some((mine, others));
    }
    other.close().await;
    Ok(first.map_or(0, |(mine, _)| mine))
}

async fn waiting_for(options: &PgConnectOptions, process: i32) -> Result<String, sqlx::Error> {
    let mut connection = options.connect().await?;
    let row = sqlx::query(
        "SELECT coalesce(
             (SELECT 'locks of ' || string_agg(format('process %s (application %s)', b.pid, quote_literal(b.application_name)), ', ')
              FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(a.pid))),
             a.wait_event_type || ' ' || a.wait_event, 'nothing: it works')
         FROM pg_stat_activity a WHERE a.pid = $1",
    )
    .bind(process)
    .fetch_one(&mut connection)
    .await?;
    let text = row.try_get(0)?;
    connection.close().await?;
    Ok(text)
}

fn connect_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
