//! Walks a chain from its first entry to its end, and says where it does not hold.

use super::chain::{Entry, GENESIS};
use crate::entity::audit_log;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Statement,
};
use std::fmt;
use uuid::Uuid;

/// How many entries are in memory at once.
const BATCH: u64 = 1000;

/// A chain that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many entries it has.
    pub entries: i64,
    /// The last one's hash: kept elsewhere, it shows later that nothing up to here was changed.
    pub head: String,
}

/// The first place where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHead => f.write_str("the record of where the chain ends is missing"),
            Self::Missing { first, last } if first == last => write!(f, "entry {first} is missing"),
            Self::Missing { first, last } => write!(f, "entries {first} to {last} are missing"),
            Self::Edited(entry) => write!(f, "entry {entry} is not what its hash was made of: it was edited or moved"),
            Self::Unlinked(entry) => write!(f, "entry {entry} does not continue entry {}", entry - 1),
            Self::BeyondEnd(entry) => write!(f, "entry {entry} was inserted behind the chain's end"),
            Self::OtherEnd(entry) => write!(f, "entry {entry} is not the one that the chain's end was recorded with"),
        }
    }
}

/// Walks the tenant's chain as it stands now, in bounded memory; others may go on appending to it.
pub async fn verify(transaction: &DatabaseTransaction, tenant: Uuid) -> Result<Result<Verified, Break>, DbErr> {
    let Some((end, head, newest)) = head(transaction, tenant).await? else { return Ok(Err(Break::NoHead)) };
    let mut last = (0, GENESIS.to_owned());
    loop {
        let batch = entries(transaction, tenant, last.0, end).await?;
        if batch.is_empty() {
            break;
        }
        for (entry, hash) in batch {
            let expected = last.0 + 1;
            if entry.sequence != expected {
                return Ok(Err(Break::Missing { first: expected, last: entry.sequence - 1 }));
            }
            if entry.hash().map_err(|error| DbErr::Json(error.to_string()))? != hash {
                return Ok(Err(Break::Edited(expected)));
            }
            if entry.prev_hash != last.1 {
                return Ok(Err(Break::Unlinked(expected)));
            }
            last = (expected, hash);
        }
    }
    Ok(if last.0 < end {
        Err(Break::Missing { first: last.0 + 1, last: end })
    } else if last.1 != head {
        Err(Break::OtherEnd(end))
    } else if newest > end {
        Err(Break::BeyondEnd(newest))
    } else {
        Ok(Verified { entries: end, head })
    })
}

/// The entries after `after` up to `end`, oldest first, a batch of them; each with the hash that it was stored with.
pub async fn entries(
    transaction: &DatabaseTransaction,
    tenant: Uuid,
    after: i64,
    end: i64,
) -> Result<Vec<(Entry, String)>, DbErr> {
    let rows = audit_log::Entity::find()
        .filter(audit_log::Column::TenantId.eq(tenant))
        .filter(audit_log::Column::Sequence.gt(after))
        .filter(audit_log::Column::Sequence.lte(end))
        .order_by_asc(audit_log::Column::Sequence)
        .limit(BATCH)
        .all(transaction)
        .await?;
    Ok(rows.into_iter().map(Entry::of_row).collect())
}

/// The recorded end of the chain, its hash, and the newest entry that is there, in one look.
async fn head(transaction: &DatabaseTransaction, tenant: Uuid) -> Result<Option<(i64, String, i64)>, DbErr> {
    let statement = Statement::from_sql_and_values(
        transaction.get_database_backend(),
        "SELECT h.sequence, h.hash,
             coalesce((SELECT max(l.sequence) FROM audit_logs l WHERE l.tenant_id = h.tenant_id), 0) AS newest
         FROM audit_heads h WHERE h.tenant_id = $1",
        [tenant.into()],
    );
    let row = transaction.query_one_raw(statement).await?;
    row.map(|row| Ok((row.try_get("", "sequence")?, row.try_get("", "hash")?, row.try_get("", "newest")?))).transpose()
}
