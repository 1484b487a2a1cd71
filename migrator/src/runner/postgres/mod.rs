//! PostgreSQL: migrations run on the session that holds the lock.

mod backfill;
mod lock;
mod pooler;

use super::plan::Plan;
use super::{Options, failed};
use crate::error::{AfterFailure, MigrationError, is_blocked, text};
use crate::history;
use crate::migration::{Direction, Migration, Mode};
use backon::{ExponentialBuilder, Retryable};
pub(super) use lock::reach;
use lock::{LockSession, ensure_lock_held};
use sea_orm_migration::sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseTransaction};
use std::time::Duration;

/// How often a migration is tried that does not get its table locks.
const TRIES: usize = 10;

/// Runs a plan.
pub(super) async fn execute(plan: &Plan<'_>, connect: &PgConnectOptions) -> Result<Vec<String>, MigrationError> {
    let session = LockSession::open(plan.options, connect).await?;
    let outcome = async {
        let connection = &session.connection;
        // The lock comes before the first change.
        if plan.is_done(connection).await?
            || !session.lock_unless(async || plan.is_done_by_others(connection).await).await?
        {
            return Ok(Vec::new());
        }
        plan.execute(connection, async |migration| {
            let _report = session.report(migration.name);
            match (migration.mode, plan.direction) {
                (Mode::Backfill(scopes), Direction::Up) => backfill::run(plan, &session, migration, scopes).await,
                (Mode::Backfill(_) | Mode::Transaction, _) => run_in_transaction(plan, &session, migration).await,
                (Mode::NonTransactional | Mode::ConcurrentIndex(_), _) => {
                    run_outside_transaction(plan, &session, migration).await
                }
            }
        })
        .await
    }
    .await;
    session.close().await;
    outcome
}

/// Does `work` in one transaction under the lock.
pub(super) async fn locked<T>(
    options: &Options,
    connect: &PgConnectOptions,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, MigrationError>,
) -> Result<T, MigrationError> {
    let session = LockSession::open(options, connect).await?;
    let outcome = async {
        session.lock_unless(async || Ok(false)).await?;
        let transaction = session.begin("the change").await?;
        let outcome = work(&transaction).await?;
        transaction.commit().await?;
        Ok(outcome)
    }
    .await;
    session.close().await;
    outcome
}

/// Runs and records a migration in one transaction. When it did not get a table's lock in time, it is rolled back and
/// tried again from its beginning.
async fn run_in_transaction(
    plan: &Plan<'_>,
    session: &LockSession<'_>,
    migration: &Migration,
) -> Result<(), MigrationError> {
    retry_when_blocked(plan, migration, async || {
        let transaction = session.begin(migration.name).await?;
        plan.run_in(&transaction, migration, u64::MAX).await?;
        transaction.commit().await?;
        Ok(())
    })
    .await
}

/// Does what is one transaction, and again where other sessions held what it needs.
async fn retry_when_blocked<T, F: Future<Output = Result<T, MigrationError>>>(
    plan: &Plan<'_>,
    migration: &Migration,
    attempt: impl FnMut() -> F,
) -> Result<T, MigrationError> {
    let cause_of = |error: &MigrationError| match error {
        MigrationError::Failed { cause, .. } if is_blocked(cause) => Some(text(cause)),
        _ => None,
    };
    let blocked = |error: &MigrationError| cause_of(error).is_some();
    let pauses = ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(500));
    let outcome = attempt
        .retry(pauses.with_max_delay(Duration::from_secs(5)).with_max_times(TRIES - 1))
        .when(blocked)
        .notify(|error, pause| {
            tracing::warn!(
                migration = migration.name,
                cause = cause_of(error),
                pause_ms = pause.as_millis(),
                lock_timeout_s = plan.options.ddl_lock_timeout.as_secs(),
                "another session holds a lock that it needs; rolled back, to be tried again"
            );
        })
        .await;
    outcome.map_err(|error| {
        if blocked(&error) { MigrationError::Blocked { name: migration.name.to_owned(), tries: TRIES } } else { error }
    })
}

/// Runs a migration that PostgreSQL takes outside transactions only. Until it has ended, only one of the history's
/// tables holds its name, by which it counts as interrupted.
async fn run_outside_transaction(
    plan: &Plan<'_>,
    session: &LockSession<'_>,
    migration: &Migration,
) -> Result<(), MigrationError> {
    let connection = &session.connection;
    ensure_lock_held(connection, migration.name).await?;
    // CREATE INDEX CONCURRENTLY waits for old transactions, and blocks nobody while it does. Any other statement may
    // block others while it waits.
    let (lock_timeout, after) = if migration.is_idempotent() {
        (Duration::ZERO, AfterFailure::RetryCleansUp)
    } else {
        (plan.options.ddl_lock_timeout, AfterFailure::Dirty)
    };
    let settings = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}",
        lock_timeout.as_millis(),
        plan.options.statement_timeout.as_millis()
    );
    connection.execute_unprepared(&settings).await?;
    history::record_started(connection, migration).await?;
    if plan.direction == Direction::Down {
        history::record_reverting(connection, migration.name).await?;
    }
    migration.run(connection, plan.direction).await.map_err(|cause| failed(migration, cause, after))?;
    match plan.direction {
        Direction::Up => history::record_applied(connection, migration.name).await?,
        Direction::Down => history::delete(connection, migration.name).await?,
    }
    Ok(())
}
