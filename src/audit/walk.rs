//! Walks a stretch of a chain, and says where it does not hold.

use super::chain::{AuditEntry, GENESIS};
use crate::database::Transaction;
use crate::entity::audit_log::{self, Column};
use crate::ids::TenantId;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Statement,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How many entries are in memory at once.
const BATCH: u64 = 1000;

/// An entry as it is exported: all that its hash is made of, and the hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Line")]
pub struct StoredEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// The hash that it was stored with.
    pub hash: String,
}

/// A line of an export, as somebody may have written it.
#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: AuditEntry,
    hash: String,
    #[serde(flatten)]
    #[allow(clippy::zero_sized_map_values, reason = "serde flattens no set")]
    more: BTreeMap<String, IgnoredAny>,
}

impl TryFrom<Line> for StoredEntry {
    type Error = String;

    /// What no entry has is refused: its hash would say nothing of that.
    fn try_from(Line { entry, hash, more }: Line) -> Result<Self, String> {
        match more.into_keys().next() {
            Some(name) => Err(format!("no entry has a member `{name}`")),
            None => Ok(Self { entry, hash }),
        }
    }
}

/// A place in a chain: an entry's number and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number; 0 is before the first entry.
    pub sequence: i64,
    /// The hash.
    pub hash: String,
}

impl Place {
    /// Before the first entry.
    pub(super) fn beginning() -> Self {
        Self { sequence: 0, hash: GENESIS.to_owned() }
    }
}

/// The first place where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Break {
    /// The tenant has no record of where its chain ends.
    NoHead,
    /// Entries are not there: deleted, truncated, or moved elsewhere.
    Missing {
        /// The first of them.
        first: i64,
        /// The last of them.
        last: i64,
    },
    /// The entry's content is not what its hash was made of: edited, or moved from another place.
    Edited(i64),
    /// The entry does not continue the one before it: it, or the one before, was put there later.
    Unlinked(i64),
    /// The entry stands behind the chain's recorded end: inserted by other means than the API's.
    BeyondEnd(i64),
    /// The last entry is not the one that the chain's end was recorded with.
    OtherEnd(i64),
    /// The entry repairs something else than what is there: entries before it were changed after it.
    OtherRepair(i64),
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHead => f.write_str("the record of where the chain ends is missing"),
            Self::Missing { first, last } if first == last => write!(f, "entry {first} is missing"),
            Self::Missing { first, last } => write!(f, "entries {first} to {last} are missing"),
            Self::Edited(entry) => write!(f, "entry {entry} is not what its hash was made of: it was edited or moved"),
            Self::Unlinked(entry) => write!(f, "entry {entry} does not continue entry {}", entry.saturating_sub(1)),
            Self::BeyondEnd(entry) => write!(f, "entry {entry} was inserted behind the chain's end"),
            Self::OtherEnd(entry) => write!(f, "entry {entry} is not the one that the chain's end was recorded with"),
            Self::OtherRepair(entry) => {
                write!(f, "entry {entry} repairs something else: entries before it were changed after the repair")
            }
        }
    }
}

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The end as it was recorded.
    pub(super) recorded: Option<Place>,
    /// The highest number that is there; 0 where there is none.
    pub(super) newest: i64,
}

impl End {
    /// The tenant's, as it is now, in one look.
    pub(super) async fn now(transaction: &Transaction, tenant: TenantId) -> Result<Self, DbErr> {
        let statement = Statement::from_sql_and_values(
            transaction.get_database_backend(),
            "SELECT h.sequence, h.hash,
                 coalesce((SELECT max(l.sequence) FROM audit_logs l WHERE l.tenant_id = $1), 0) AS newest
             FROM (SELECT 1 AS one) AS always LEFT JOIN audit_heads h ON h.tenant_id = $1",
            [tenant.into()],
        );
        let row = transaction.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("the end of the audit chain".to_owned()))?;
        let (sequence, hash): (Option<i64>, Option<String>) = (row.try_get("", "sequence")?, row.try_get("", "hash")?);
        let recorded = sequence.zip(hash).map(|(sequence, hash)| Place { sequence, hash });
        Ok(Self { recorded, newest: row.try_get("", "newest")? })
    }

    /// The tenant's as it was before the entry of this number, when `recorded` was what it is here.
    pub(super) async fn before(
        transaction: &Transaction,
        tenant: TenantId,
        entry: i64,
        recorded: Option<Place>,
    ) -> Result<Self, DbErr> {
        let newest = audit_log::Entity::find()
            .select_only()
            .column(Column::Sequence)
            .filter(Column::TenantId.eq(tenant))
            .filter(Column::Sequence.lt(entry))
            .order_by_desc(Column::Sequence)
            .limit(1)
            .into_tuple::<i64>()
            .one(transaction)
            .await?;
        Ok(Self { recorded, newest: newest.unwrap_or_default() })
    }
}

/// Walks the tenant's chain from behind `start` to `end`, in bounded memory: the last place up to which it holds, and
/// what is wrong behind that.
pub(super) async fn walk(
    transaction: &Transaction,
    tenant: TenantId,
    start: &Place,
    end: &End,
) -> Result<(Place, Option<Break>), DbErr> {
    let mut last = start.clone();
    let recorded = end.recorded.as_ref();
    let until = recorded.map_or(end.newest, |recorded| recorded.sequence);
    loop {
        let batch = entries(transaction, tenant, last.sequence, until).await?;
        if batch.is_empty() {
            break;
        }
        for (entry, hash) in batch {
            let expected = last.sequence + 1;
            let broken = if entry.sequence != expected {
                Break::Missing { first: expected, last: entry.sequence - 1 }
            } else if hash_of(&entry)? != hash {
                Break::Edited(expected)
            } else if entry.prev_hash != last.hash {
                Break::Unlinked(expected)
            } else {
                last = Place { sequence: expected, hash };
                continue;
            };
            return Ok((last, Some(broken)));
        }
    }
    let broken = match recorded {
        None => Some(Break::NoHead),
        Some(end) if last.sequence < end.sequence => {
            Some(Break::Missing { first: last.sequence + 1, last: end.sequence })
        }
        Some(end) if last.hash != end.hash => Some(Break::OtherEnd(end.sequence)),
        Some(recorded) if end.newest > recorded.sequence => Some(Break::BeyondEnd(end.newest)),
        Some(_) => None,
    };
    Ok((last, broken))
}

/// The entries after `after` up to `end`, oldest first, a batch of them; each with the hash that it was stored with.
pub async fn entries(
    transaction: &Transaction,
    tenant: TenantId,
    after: i64,
    end: i64,
) -> Result<Vec<(AuditEntry, String)>, DbErr> {
    let rows = audit_log::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Sequence.gt(after))
        .filter(Column::Sequence.lte(end))
        .order_by_asc(Column::Sequence)
        .limit(BATCH)
        .all(transaction)
        .await?;
    let mut batch: Vec<(AuditEntry, String)> = rows.into_iter().map(AuditEntry::from_row).collect();
    if transaction.get_database_backend() == DbBackend::Sqlite {
        show_as_stored(transaction, tenant, &mut batch).await?;
    }
    Ok(batch)
}

/// SQLite keeps text, which may mean the same as what was written, and be other text: such a time and such metadata are shown
/// as they are stored, so that the hash does not fit.
async fn show_as_stored(
    transaction: &Transaction,
    tenant: TenantId,
    batch: &mut [(AuditEntry, String)],
) -> Result<(), DbErr> {
    let (Some((first, _)), Some((last, _))) = (batch.first(), batch.last()) else { return Ok(()) };
    let sql = "SELECT CAST(metadata AS text), CAST(created_at AS text) FROM audit_logs
               WHERE tenant_id = ? AND sequence BETWEEN ? AND ? ORDER BY sequence";
    let values = [tenant.into(), first.sequence.into(), last.sequence.into()];
    let rows = transaction.query_all_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    for ((entry, _), row) in batch.iter_mut().zip(rows) {
        let (metadata, created_at): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        let written = entry.metadata.to_string();
        if written != metadata {
            entry.metadata = metadata.into();
        }
        entry.created_at = created_at;
    }
    Ok(())
}

fn hash_of(entry: &AuditEntry) -> Result<String, DbErr> {
    entry.hash().map_err(|error| DbErr::Json(error.to_string()))
}
