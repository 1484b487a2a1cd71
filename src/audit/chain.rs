//! The chain: an entry's canonical form, its hash, and how entries are appended.

use super::event::Record;
use crate::entity::audit_log::{self, Column};
use aws_lc_rs::digest::{SHA256, digest};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityName, Statement};
use serde::Serialize;
use serde_json::Value;
use std::net::IpAddr;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

/// What the first entry of a chain has in place of a hash before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// RFC 3339 in UTC with six digits of a second, always: the same instant is the same text.
const INSTANT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// One entry. Its canonical form is JSON by RFC 8785 (JCS) of all its members; its hash is SHA-256 of that.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The tenant in whose chain it stands.
    pub tenant_id: Uuid,
    /// Its place: 1, 2, 3, without a gap.
    pub sequence: i64,
    /// UUID v7.
    pub id: Uuid,
    /// Who did it, where there is a row for them.
    pub user_id: Option<Uuid>,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub resource_type: String,
    /// To which one.
    pub resource_id: Option<Uuid>,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// With which program.
    pub user_agent: Option<String>,
    /// What else is known of it.
    pub metadata: Value,
    /// When: RFC 3339, UTC, microseconds.
    pub created_at: String,
    /// The hash of the entry before it, in hexadecimal.
    pub prev_hash: String,
}

impl Entry {
    /// SHA-256 of the canonical form, in hexadecimal.
    pub fn hash(&self) -> Result<String, serde_json::Error> {
        let canonical = serde_json_canonicalizer::to_vec(self)?;
        Ok(hex::encode(digest(&SHA256, &canonical)))
    }

    /// The entry that a row holds, whatever its hash says.
    #[must_use]
    pub fn of_row(row: audit_log::Model) -> (Self, String) {
        // PostgreSQL writes inet with the length of its network.
        let address = |text: String| text.split('/').next().and_then(|text| text.parse().ok());
        let entry = Self {
            tenant_id: row.tenant_id,
            sequence: row.sequence,
            id: row.id,
            user_id: row.user_id,
            action: row.action,
            resource_type: row.resource_type,
            resource_id: row.resource_id,
            ip: row.ip.and_then(address),
            user_agent: row.user_agent,
            metadata: row.metadata,
            created_at: instant(row.created_at),
            prev_hash: row.prev_hash,
        };
        (entry, row.hash)
    }
}

fn instant(at: OffsetDateTime) -> String {
    // Years of four digits always have this form.
    at.to_offset(time::UtcOffset::UTC).format(INSTANT).unwrap_or_default()
}

/// Appends `records` to the tenant's chain, in this order. Holds the end of the chain until the transaction ends: let
/// it be the last thing before the commit.
pub async fn append(transaction: &DatabaseTransaction, tenant: Uuid, records: Vec<Record>) -> Result<(), DbErr> {
    let (mut sequence, mut prev_hash) = lock_head(transaction, tenant).await?;
    let backend = transaction.get_database_backend();
    let mut insert = Query::insert();
    insert.into_table(audit_log::Entity.table_ref()).columns([
        Column::Id,
        Column::TenantId,
        Column::Sequence,
        Column::UserId,
        Column::Action,
        Column::ResourceType,
        Column::ResourceId,
        Column::Ip,
        Column::UserAgent,
        Column::Metadata,
        Column::CreatedAt,
        Column::PrevHash,
        Column::Hash,
    ]);
    for record in records {
        sequence += 1;
        let entry = Entry {
            tenant_id: tenant,
            sequence,
            id: Uuid::now_v7(),
            user_id: record.user_id,
            action: record.action.name().to_owned(),
            resource_type: record.resource_type.to_owned(),
            resource_id: record.resource_id,
            ip: record.origin.ip,
            user_agent: record.origin.user_agent,
            metadata: record.metadata.into(),
            created_at: instant(record.at),
            prev_hash,
        };
        let hash = entry.hash().map_err(|error| DbErr::Json(error.to_string()))?;
        let ip = Expr::val(entry.ip.map(|ip| ip.to_string()));
        insert.values_panic([
            entry.id.into(),
            tenant.into(),
            sequence.into(),
            entry.user_id.into(),
            entry.action.into(),
            entry.resource_type.into(),
            entry.resource_id.into(),
            if backend == DbBackend::Postgres { ip.cast_as(Alias::new("inet")) } else { ip },
            entry.user_agent.into(),
            entry.metadata.into(),
            if backend == DbBackend::Postgres { record.at.into() } else { entry.created_at.into() },
            entry.prev_hash.into(),
            hash.clone().into(),
        ]);
        prev_hash = hash;
    }
    transaction.execute(&insert).await.map(drop)
}

/// Where the chain ends; whoever else appends to it waits.
async fn lock_head(transaction: &DatabaseTransaction, tenant: Uuid) -> Result<(i64, String), DbErr> {
    let sql = match transaction.get_database_backend() {
        DbBackend::Postgres => "SELECT sequence, hash FROM lock_audit_head($1)",
        // A transaction that writes has the file to itself from its beginning.
        _ => "SELECT sequence, hash FROM audit_heads WHERE tenant_id = $1",
    };
    let statement = Statement::from_sql_and_values(transaction.get_database_backend(), sql, [tenant.into()]);
    let row = transaction.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound(format!("the audit chain of tenant {tenant}")))?;
    Ok((row.try_get("", "sequence")?, row.try_get("", "hash")?))
}
