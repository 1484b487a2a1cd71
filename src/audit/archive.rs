//! Where a chain goes on whose first entries are archived: deploy/postgres/archive-audit-logs.sql detaches months of the log, and notes
//! the last entry of each chain in them.

use super::walk::Place;
use crate::database::Transaction;
use crate::entity::audit_node::{self, Column};
use crate::ids::TenantId;
use crate::merkle::{Hash, WIDTH};
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder, Statement};

/// The last entry of the tenant's that is archived, as it was noted then; `None` where the log begins with its first entry, or where
/// nothing is noted of what came before its first one.
pub(crate) async fn archived_end(transaction: &Transaction, tenant: TenantId) -> Result<Option<Place>, DbErr> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let statement =
        |sql: &str, values: Vec<sea_orm::Value>| Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let is_noted = statement("SELECT to_regclass('audit_archive.ends') IS NOT NULL", Vec::new());
    let is_noted = transaction.query_one_raw(is_noted).await?;
    if !is_noted.is_some_and(|row| row.try_get_by_index(0).unwrap_or(false)) {
        return Ok(None);
    }
    // A month is noted before it is detached.
    let sql = "SELECT e.sequence, e.hash FROM audit_archive.ends e
        WHERE e.tenant_id = $1 AND e.sequence < coalesce(
            (SELECT min(l.sequence) FROM audit_logs l WHERE l.tenant_id = $1), 9223372036854775807)
        ORDER BY e.sequence DESC LIMIT 1";
    let Some(row) = transaction.query_one_raw(statement(sql, vec![tenant.into()])).await? else { return Ok(None) };
    Ok(Some(Place { sequence: row.try_get_by_index(0)?, hash: row.try_get_by_index(1)? }))
}

/// How many entries of the tenant's are archived; 0 where the log has no partitions, or has the one with its beginning. The role of
/// run time can ask this, and not for [`archived_end`].
pub(super) async fn archived_count(transaction: &Transaction, tenant: TenantId) -> Result<i64, DbErr> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(0);
    }
    let sql = "SELECT CASE WHEN bool_and(pg_get_expr(c.relpartbound, c.oid) NOT LIKE 'FOR VALUES FROM (MINVALUE) %') THEN coalesce(
            (SELECT min(l.sequence) - 1 FROM audit_logs l WHERE l.tenant_id = $1),
            (SELECT h.sequence FROM audit_heads h WHERE h.tenant_id = $1)) END
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('audit_logs')";
    let row =
        transaction.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, [tenant.into()])).await?;
    let count: Option<i64> = row.map_or(Ok(None), |row| row.try_get_by_index(0))?;
    Ok(count.unwrap_or_default())
}

/// The roots of the groups of 256 entries up to the one that `end` is in, as they were computed before; `None` where one is missing.
pub(super) async fn archived_groups(
    transaction: &Transaction,
    tenant: TenantId,
    end: &Place,
) -> Result<Option<Vec<Hash>>, DbErr> {
    let count = end.sequence.unsigned_abs().div_ceil(WIDTH);
    let rows = audit_node::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Level.eq(1_i64))
        .filter(Column::Position.lt(i64::try_from(count).unwrap_or(i64::MAX)))
        .order_by_asc(Column::Position)
        .all(transaction)
        .await?;
    let hashes: Option<Vec<Hash>> = rows.into_iter().map(|row| row.hash.try_into().ok()).collect();
    Ok(hashes.filter(|hashes| hashes.len() as u64 == count))
}
