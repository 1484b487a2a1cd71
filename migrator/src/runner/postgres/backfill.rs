//! Runs a backfill: each batch is a transaction of its own, under the lock.

use super::lock::LockSession;
use super::{Plan, retry_when_blocked};
use crate::error::{AfterFailure, MigrationError};
use crate::history;
use crate::migration::{Direction, Migration, Scopes};
use crate::runner::batches::Batches;
use crate::runner::failed;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement, TryGetable};

/// Runs batches until one changes nothing, for each scope; starts over where a pass has changed anything, since a scope may have
/// been added meanwhile. Then records the migration. Until then it is pending, whatever interrupts it.
pub(super) async fn run(
    plan: &Plan<'_>,
    session: &LockSession<'_>,
    migration: &Migration,
    scopes: Option<Scopes>,
) -> Result<(), MigrationError> {
    let transaction = session.begin(migration.name).await?;
    let limit = row_limit(&transaction).await?;
    // Policies do not hold for these roles: one scope shows them all rows.
    let all_rows = "SELECT rolsuper OR rolbypassrls AS found FROM pg_roles WHERE rolname = current_user";
    let scopes = scopes.filter({
        let all_rows = first(&transaction, all_rows).await?.unwrap_or(false);
        move |_| !all_rows
    });
    transaction.rollback().await?;

    let mut batches = Batches::new(migration, limit);
    loop {
        let mut changed = false;
        for scope in list(session, migration, scopes).await? {
            while batches.add(batch(plan, session, migration, scope.as_ref()).await?)? {
                changed = true;
            }
        }
        if !changed || scopes.is_none() {
            break;
        }
    }
    batches.log("no row is left to change");
    let transaction = session.begin(migration.name).await?;
    history::record_started(&transaction, migration).await?;
    history::record_applied(&transaction, migration.name).await?;
    transaction.commit().await?;
    Ok(())
}

/// Runs one batch; returns how many rows it changed.
async fn batch(
    plan: &Plan<'_>,
    session: &LockSession<'_>,
    migration: &Migration,
    scope: Option<&(&str, String)>,
) -> Result<u64, MigrationError> {
    retry_when_blocked(plan, migration, async || {
        let transaction = session.begin(&format!("the next batch of {}", migration.name)).await?;
        if let Some((setting, value)) = scope {
            let values = [(*setting).into(), value.as_str().into()];
            let set = "SELECT set_config($1, $2, true)";
            transaction.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, set, values)).await?;
        } else {
            // A policy that hides rows then makes the statement fail; otherwise they would be left out in silence
            // (postgresql.org/docs/current/ddl-rowsecurity.html).
            transaction.execute_unprepared("SET LOCAL row_security = off").await?;
        }
        let rows = migration.run(&transaction, Direction::Up).await;
        let rows = rows.map_err(|cause| failed(migration, cause, AfterFailure::BatchesStay))?;
        transaction.commit().await?;
        Ok(rows)
    })
    .await
}

/// The setting and its value for each scope; a single `None` where the statement runs for all rows.
async fn list(
    session: &LockSession<'_>,
    migration: &Migration,
    scopes: Option<Scopes>,
) -> Result<Vec<Option<(&'static str, String)>>, MigrationError> {
    let Some(scopes) = scopes else { return Ok(vec![None]) };
    let transaction = session.begin(migration.name).await?;
    transaction.execute_unprepared(scopes.prepare).await?;
    let rows = transaction.query_all_raw(Statement::from_string(DbBackend::Postgres, scopes.query)).await?;
    transaction.rollback().await?;
    if rows.is_empty() {
        // Rows that a policy hides are not rows that are done.
        return Err(MigrationError::NoScope { name: migration.name.to_owned() });
    }
    let value = |row: &sea_orm_migration::sea_orm::QueryResult| Ok(Some((scopes.setting, row.try_get_by_index(0)?)));
    rows.iter().map(value).collect()
}

/// Twice the rows that can be in the schema's tables, for those that are written meanwhile: a row takes 24 bytes for its header
/// and 4 for its place, at least (postgresql.org/docs/current/storage-page-layout.html).
async fn row_limit(transaction: &DatabaseTransaction) -> Result<u64, DbErr> {
    let bytes = "SELECT sum(pg_relation_size(oid))::bigint AS found FROM pg_class
        WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace";
    let bytes: i64 = first(transaction, bytes).await?.unwrap_or_default();
    Ok(u64::try_from(bytes).unwrap_or_default() / 28 * 2 + 100_000)
}

async fn first<T: TryGetable>(transaction: &DatabaseTransaction, sql: &str) -> Result<Option<T>, DbErr> {
    let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.map(|row| row.try_get("", "found")).transpose()
}
