//! The chain: an entry's canonical form, its hash, and how entries are appended. PostgreSQL chains them itself (migration
//! `confine_functions`); on SQLite, which has no SHA-256, the application does.

use super::event::EventDraft;
use crate::database::{Access, Pool, Transaction};
use crate::entity::audit_log::{self, Column};
use crate::ids::{AuditLogId, TenantId, UserId};
use aws_lc_rs::digest::{SHA256, digest};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, InsertStatement, Query};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, EntityName, RuntimeErr, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::{NoContext, Timestamp, Uuid};

/// What the first entry of a chain has in place of a hash before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// How long a transaction of one chain waits for its end; the statement's own timeout may be shorter.
pub(super) const PATIENCE_ALONE: Duration = Duration::from_mins(1);

/// RFC 3339 in UTC with six digits of a second, always: the same instant is the same text.
const INSTANT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// One entry. Its canonical form is JSON by RFC 8785 (JCS) of all its members; its hash is SHA-256 of that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The tenant in whose chain it stands.
    pub tenant_id: TenantId,
    /// Its place: 1, 2, 3, without a gap.
    pub sequence: i64,
    /// UUID v7 with 74 random bits, which are the salt of the hash: whoever holds it, such as a leaf of the log's tree, and no longer the
    /// entry cannot find out by trying what the entry said.
    pub id: AuditLogId,
    /// Who did it, where there is a row for them.
    pub user_id: Option<UserId>,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub resource_type: String,
    /// To which one.
    pub resource_id: Option<Uuid>,
    /// From which address, as the database writes it.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// What else is known of it.
    pub metadata: Value,
    /// When: RFC 3339, UTC, microseconds.
    pub created_at: String,
    /// The hash of the entry before it, in hexadecimal.
    pub prev_hash: String,
}

impl AuditEntry {
    /// SHA-256 of the canonical form, in hexadecimal.
    pub fn hash(&self) -> Result<String, serde_json::Error> {
        Ok(hex::encode(digest(&SHA256, &self.canonical()?)))
    }

    /// The canonical form.
    pub(super) fn canonical(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json_canonicalizer::to_vec(self)
    }

    /// The entry that a row holds, whatever its hash says.
    #[must_use]
    pub fn from_row(row: audit_log::Model) -> (Self, String) {
        // PostgreSQL writes inet with the length of its network, which a single address has at its longest.
        let address = |ip: String| match ip.strip_suffix(if ip.contains(':') { "/128" } else { "/32" }) {
            Some(address) => address.to_owned(),
            None => ip,
        };
        let entry = Self {
            tenant_id: row.tenant_id,
            sequence: row.sequence,
            id: row.id,
            user_id: row.user_id,
            action: row.action,
            resource_type: row.resource_type,
            resource_id: row.resource_id,
            ip: row.ip.map(address),
            user_agent: row.user_agent,
            metadata: row.metadata,
            created_at: format_timestamp(row.created_at),
            prev_hash: row.prev_hash,
        };
        (entry, row.hash)
    }
}

/// A time as the log has it.
pub(crate) fn format_timestamp(at: OffsetDateTime) -> String {
    // Years of four digits always have this form.
    at.to_offset(time::UtcOffset::UTC).format(INSTANT).unwrap_or_default()
}

/// An event with the id of its entry, as `record_entries` takes it (migration `record_entries`).
#[derive(Debug, Clone, Serialize)]
pub(super) struct NewEntry {
    pub(super) tenant_id: TenantId,
    id: AuditLogId,
    user_id: Option<UserId>,
    action: &'static str,
    resource_type: &'static str,
    resource_id: Option<Uuid>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    metadata: Value,
}

impl From<EventDraft> for NewEntry {
    fn from(event: EventDraft) -> Self {
        Self {
            // `Uuid::now_v7` would count within a millisecond: an entry's id would say most of its neighbour's.
            id: AuditLogId(Uuid::new_v7(Timestamp::now(NoContext))),
            metadata: event.metadata(),
            tenant_id: event.tenant_id,
            user_id: event.user_id,
            action: event.action.name(),
            resource_type: event.resource_type,
            resource_id: event.resource_id,
            ip: event.client.ip,
            user_agent: event.client.user_agent,
        }
    }
}

/// The call that appends entries to their chains, and gives up once it has waited for `patience` for the end of one.
fn record_entries(entries: &[NewEntry], patience: Duration) -> Result<Statement, DbErr> {
    // As text: a tree of values would only be written out again by the driver.
    let json = serde_json::to_string(entries).map_err(|error| DbErr::Json(error.to_string()))?;
    let values = [json.into(), format!("{}ms", patience.as_millis()).into()];
    Ok(Statement::from_sql_and_values(DbBackend::Postgres, "SELECT record_entries($1::jsonb, $2)", values))
}

/// Appends entries of several tenants to their chains, those of each in this order, and commits. On PostgreSQL it is one
/// round trip, and gives up once it has waited for `patience` for the end of a chain.
pub(super) async fn record(pool: &Pool, entries: &[NewEntry], patience: Duration) -> Result<(), DbErr> {
    if pool.get_database_backend() == DbBackend::Postgres {
        let statement = record_entries(entries, patience)?;
        let tries = AtomicU32::new(0);
        let recorded = pool.in_another_session(|| {
            tries.fetch_add(1, Ordering::Relaxed);
            pool.execute_raw(statement.clone())
        });
        return match recorded.await {
            // Their ids are there: an earlier session ended after it had committed them.
            Err(error) if tries.into_inner() > 1 && repeats_an_id(&error) => Ok(()),
            recorded => recorded.map(drop),
        };
    }
    let Some(first) = entries.first() else { return Ok(()) };
    let transaction = pool.begin(first.tenant_id, Access::Write).await?;
    let mut rest = entries.to_vec();
    rest.sort_by_key(|entry| entry.tenant_id);
    for chain in rest.chunk_by(|one, next| one.tenant_id == next.tenant_id) {
        transaction.execute(&insert_chained(&transaction, chain).await?).await?;
    }
    transaction.commit().await
}

/// Whether PostgreSQL refused an entry because its id is in the log. Each partition has a primary key with a name of its own.
fn repeats_an_id(error: &DbErr) -> bool {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => cause
            .as_database_error()
            .and_then(|cause| cause.constraint())
            .is_some_and(|name| name.starts_with("audit_logs_") && name.ends_with("_pkey")),
        _ => false,
    }
}

/// Appends events of one tenant to its chain, in this order, with the rights of the transaction's role. It locks the end of
/// the chain until the transaction ends: let it be the last thing before the commit.
pub async fn append(transaction: &Transaction, events: Vec<EventDraft>) -> Result<(), DbErr> {
    let entries: Vec<NewEntry> = events.into_iter().map(NewEntry::from).collect();
    let insert = match transaction.get_database_backend() {
        // A trigger chains them: nobody who may append chooses an entry's place, time or hash.
        DbBackend::Postgres => insert(entries),
        _ => insert_chained(transaction, &entries).await?,
    };
    transaction.execute(&insert).await.map(drop)
}

/// Appends entries to the chain of the transaction's tenant, in this order: the last thing before the commit.
pub(super) async fn append_to(transaction: &Transaction, entries: Vec<NewEntry>) -> Result<(), DbErr> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        // One statement for any number of entries.
        return transaction.execute_raw(record_entries(&entries, PATIENCE_ALONE)?).await.map(drop);
    }
    transaction.execute(&insert_chained(transaction, &entries).await?).await.map(drop)
}

/// What an entry says, without its place in the chain.
const CONTENT: [Column; 9] = [
    Column::Id,
    Column::TenantId,
    Column::UserId,
    Column::Action,
    Column::ResourceType,
    Column::ResourceId,
    Column::Ip,
    Column::UserAgent,
    Column::Metadata,
];

fn insert(entries: Vec<NewEntry>) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(audit_log::Entity.table_ref()).columns(CONTENT);
    for entry in entries {
        insert.values_panic([
            entry.id.into(),
            entry.tenant_id.into(),
            entry.user_id.into(),
            entry.action.into(),
            entry.resource_type.into(),
            entry.resource_id.into(),
            Expr::val(entry.ip.map(|ip| ip.to_string())).cast_as(Alias::new("inet")),
            entry.user_agent.into(),
            entry.metadata.into(),
        ]);
    }
    insert
}

async fn insert_chained(transaction: &Transaction, entries: &[NewEntry]) -> Result<InsertStatement, DbErr> {
    let tenant = entries.first().map_or(super::SYSTEM_TENANT, |entry| entry.tenant_id);
    let (mut sequence, mut prev_hash) = head(transaction, tenant).await?;
    let mut insert = Query::insert();
    let place = [Column::Sequence, Column::CreatedAt, Column::PrevHash, Column::Hash];
    insert.into_table(audit_log::Entity.table_ref()).columns(CONTENT.into_iter().chain(place));
    for entry in entries.iter().cloned() {
        sequence += 1;
        let entry = AuditEntry {
            tenant_id: tenant,
            sequence,
            id: entry.id,
            user_id: entry.user_id,
            action: entry.action.to_owned(),
            resource_type: entry.resource_type.to_owned(),
            resource_id: entry.resource_id,
            ip: entry.ip.map(|ip| ip.to_string()),
            metadata: entry.metadata,
            user_agent: entry.user_agent,
            created_at: format_timestamp(OffsetDateTime::now_utc()),
            prev_hash,
        };
        let hash = entry.hash().map_err(|error| DbErr::Json(error.to_string()))?;
        insert.values_panic([
            entry.id.into(),
            tenant.into(),
            entry.user_id.into(),
            entry.action.into(),
            entry.resource_type.into(),
            entry.resource_id.into(),
            entry.ip.into(),
            entry.user_agent.into(),
            entry.metadata.into(),
            sequence.into(),
            entry.created_at.into(),
            entry.prev_hash.into(),
            hash.clone().into(),
        ]);
        prev_hash = hash;
    }
    Ok(insert)
}

/// Where the chain ends. A transaction of SQLite that writes has the file to itself from its beginning.
async fn head(transaction: &Transaction, tenant: TenantId) -> Result<(i64, String), DbErr> {
    let statement = Statement::from_sql_and_values(
        transaction.get_database_backend(),
        "SELECT sequence, hash FROM audit_heads WHERE tenant_id = $1",
        [tenant.into()],
    );
    let row = transaction.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound(format!("the audit chain of tenant {tenant}")))?;
    Ok((row.try_get("", "sequence")?, row.try_get("", "hash")?))
}
