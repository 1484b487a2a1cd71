//! The repair of a chain that does not hold: an entry that says for ever what was broken, and from which on the chain holds
//! again.

use super::chain::{GENESIS, append};
use super::event::{Action, EventDraft};
use super::repair_entry::{Repair, Repaired, remains, repairs};
use super::verify::examine;
use super::walk::End;
use crate::database::Transaction;
use crate::ids::TenantId;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

/// Opens a new segment of a chain that does not hold: an entry behind everything that is there, which names the break.
/// `None` where the chain holds. The tenant's other writers wait meanwhile.
///
/// # Errors
/// Where the triggers of the audit log's tables are not in place, without which no entry moves the chain's end, or where
/// the database fails.
pub async fn repair(
    transaction: &Transaction,
    tenant: TenantId,
    by: &str,
    reason: &str,
) -> Result<Option<Repaired>, DbErr> {
    hold_head(transaction, tenant).await?;
    let end = End::now(transaction, tenant).await?;
    let Some((intact, broken)) = examine(transaction, tenant, &end).await?.broken else { return Ok(None) };
    let recorded = end.recorded.as_ref().map_or(0, |head| head.sequence);
    let last = recorded.max(end.newest);
    match &end.recorded {
        None => insert_head(transaction, tenant, last).await?,
        Some(head) if head.sequence < last => move_head(transaction, tenant, last).await?,
        Some(_) => {}
    }
    let remains = remains(transaction, tenant, intact.sequence, last + 1).await?;
    let repair = Repair { by: by.to_owned(), reason: reason.to_owned(), broken, intact, head: end.recorded, remains };
    let json = |error: serde_json::Error| DbErr::Json(error.to_string());
    let event = EventDraft::new(tenant, Action::ChainRepaired, "audit_logs")
        .with("by", repair.by.as_str())
        .with("reason", repair.reason.as_str())
        .with("break", serde_json::to_value(&repair.broken).map_err(json)?)
        .with("intact", serde_json::to_value(&repair.intact).map_err(json)?)
        .with("head", serde_json::to_value(&repair.head).map_err(json)?)
        .with("remains", repair.remains.as_str());
    append(transaction, vec![event]).await?;

    let made = repairs(transaction, tenant).await?.pop().filter(|entry| entry.sequence == last + 1);
    let end = End::now(transaction, tenant).await?.recorded;
    match (made, end) {
        (Some(entry), Some(end)) if entry.hash().map_err(json)? == end.hash => {
            Ok(Some(Repaired { repair, sequence: entry.sequence, at: entry.created_at }))
        }
        _ => Err(DbErr::Custom("the audit log's triggers are not in place: `bulkhead migrate verify`".to_owned())),
    }
}

/// Holds the chain's end until the transaction ends. On SQLite a transaction that writes has the file to itself.
async fn hold_head(transaction: &Transaction, tenant: TenantId) -> Result<(), DbErr> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT FROM audit_heads WHERE tenant_id = $1 FOR UPDATE";
        execute(transaction, sql, vec![tenant.into()]).await?;
    }
    Ok(())
}

async fn insert_head(transaction: &Transaction, tenant: TenantId, sequence: i64) -> Result<(), DbErr> {
    let sql = "INSERT INTO audit_heads (tenant_id, sequence, hash) VALUES ($1, $2, $3)";
    execute(transaction, sql, vec![tenant.into(), sequence.into(), GENESIS.into()]).await
}

/// Moves the recorded end over entries that were put behind it. A trigger refuses that to everyone; the owner may take it
/// away, and nobody sees the table without it, since it is back before the transaction ends.
///
/// On PostgreSQL this waits for those who have moved an end, of any chain, and not for those who wait for this one: they
/// have read it for update, which does not conflict with the lock that ALTER TABLE takes here (SHARE ROW EXCLUSIVE,
/// postgresql.org/docs/current/explicit-locking.html).
async fn move_head(transaction: &Transaction, tenant: TenantId, sequence: i64) -> Result<(), DbErr> {
    let update = "UPDATE audit_heads SET sequence = $2 WHERE tenant_id = $1";
    let values = vec![tenant.into(), sequence.into()];
    if transaction.get_database_backend() == DbBackend::Postgres {
        let trigger = |verb: &str| format!("ALTER TABLE audit_heads {verb} TRIGGER audit_heads_advance");
        transaction.execute_unprepared(&trigger("DISABLE")).await?;
        execute(transaction, update, values).await?;
        transaction.execute_unprepared(&trigger("ENABLE")).await?;
        return Ok(());
    }
    let find = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'audit_heads_advance'";
    let statement = Statement::from_string(DbBackend::Sqlite, find);
    let row = transaction.query_one_raw(statement).await?;
    let trigger: String = row
        .ok_or_else(|| DbErr::Custom("audit_heads has no trigger audit_heads_advance".to_owned()))?
        .try_get("", "sql")?;
    transaction.execute_unprepared("DROP TRIGGER audit_heads_advance").await?;
    execute(transaction, update, values).await?;
    transaction.execute_unprepared(&trigger).await.map(drop)
}

async fn execute(transaction: &Transaction, sql: &str, values: Vec<sea_orm::Value>) -> Result<(), DbErr> {
    let statement = Statement::from_sql_and_values(transaction.get_database_backend(), sql, values);
    transaction.execute_raw(statement).await.map(drop)
}
