//! Checkpoints: the root over a tenant's entries so far, signed and kept. None contradicts one before it.

use super::archive::archived_count;
use super::tree::{self, groups, keep, signed};
use super::walk::End;
use crate::database::{Access, Pool, Transaction};
use crate::entity::audit_checkpoint::{self, Column};
use crate::ids::TenantId;
use crate::merkle::{self, WIDTH};
use crate::note::{self, Checkpoint, SigningKey};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use std::ops::Range;
use std::time::Duration;
use time::OffsetDateTime;

/// How many groups of 256 entries one transaction reads.
const GROUPS: u64 = 16;

/// How many stored checkpoints are looked at for one that this instance's key has signed.
const NEWEST: u64 = 16;

/// Why no checkpoint is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The log is shorter than it was.
    #[error("the log ends with entry {now}, and a checkpoint of {then} entries was signed: entries are missing")]
    Cut {
        /// The size of the newest checkpoint.
        then: u64,
        /// The recorded end now.
        now: u64,
    },
    /// The root over the first entries is not what was signed.
    #[error("the first {0} entries are not those of the checkpoint that was signed: they were changed")]
    Rewritten(u64),
    /// A stored node is not what the entries make it.
    #[error("node {1} of level {0} of the Merkle tree is not what the entries make it")]
    OtherNode(u32, u64),
    /// Entries are archived of which the hashes would be needed.
    #[error("entries 1 to {0} are archived, and with them a part of the 256 that a next checkpoint would begin with")]
    Archived(i64),
    /// The first entry is not there.
    #[error("entry 1 is missing, and no checkpoint was made while it was there")]
    NoBeginning,
}

impl Refused {
    /// Whether the entries are not those that were signed, or that the nodes are made of.
    #[must_use]
    pub fn contradicts(&self) -> bool {
        !matches!(self, Self::Archived(_))
    }
}

/// What has come of making a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// The signed note, which is stored.
    Note(String),
    /// The newest one is younger than asked for, by so much.
    NotDue(Duration),
    /// The log has no entries.
    Empty,
}

/// A checkpoint that is stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
    pub(crate) created_at: OffsetDateTime,
}

/// The tenant's newest checkpoint that this key has signed; without a key the newest there is.
pub(crate) async fn newest(
    transaction: &Transaction,
    tenant: TenantId,
    key: Option<&SigningKey>,
) -> Result<Option<Stored>, DbErr> {
    let rows = audit_checkpoint::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .order_by_desc(Column::Size)
        .limit(NEWEST)
        .all(transaction)
        .await?;
    let opened = |note: &str| match key {
        Some(key) => note::open(note, &[key.verifier(&key.origin(tenant))]).ok(),
        None => note::read_unverified(note),
    };
    Ok(rows.into_iter().find_map(|row| {
        let checkpoint = opened(&row.note)?;
        Some(Stored { checkpoint, note: row.note, created_at: row.created_at })
    }))
}

/// Makes a checkpoint of the tenant's log as it is now, unless the newest is younger than `age`. Each of its transactions is
/// short, and none holds up who appends; what was begun before is gone on with.
pub async fn checkpoint(
    pool: &Pool,
    access: Access,
    tenant: TenantId,
    key: &SigningKey,
    age: Option<Duration>,
) -> Result<Result<Made, Refused>, DbErr> {
    let transaction = pool.begin(tenant, to_read(access)).await?;
    let before = newest(&transaction, tenant, Some(key)).await?;
    if let (Some(age), Some(before)) = (age, &before) {
        let old = (OffsetDateTime::now_utc() - before.created_at).try_into().unwrap_or(Duration::ZERO);
        if old < age {
            return Ok(Ok(Made::NotDue(age.saturating_sub(old))));
        }
    }
    let end = End::now(&transaction, tenant).await?.recorded;
    let archived = archived_count(&transaction, tenant).await?;
    drop(transaction);
    let size = end.and_then(|end| u64::try_from(end.sequence).ok()).unwrap_or_default();
    let signed_size = before.as_ref().map_or(0, |before| before.checkpoint.size);
    if size < signed_size {
        return Ok(Err(Refused::Cut { then: signed_size, now: size }));
    }
    if size == 0 {
        return Ok(Ok(Made::Empty));
    }
    // The tree goes on from the last whole group.
    if archived > signed(signed_size / WIDTH * WIDTH) {
        return Ok(Err(Refused::Archived(archived)));
    }
    if let Err(refused) = extend(pool, access, tenant, signed_size..size).await? {
        return Ok(Err(refused));
    }

    let transaction = pool.begin(tenant, access).await?;
    let all = 0..size;
    let nodes = tree::load(&transaction, tenant, &[all.clone(), 0..signed_size]).await?;
    if let Some(before) = before {
        if merkle::over(&nodes, &(0..signed_size)).ok_or_else(missing)? != before.checkpoint.root {
            return Ok(Err(Refused::Rewritten(signed_size)));
        }
        if size == signed_size {
            return Ok(Ok(Made::Note(before.note)));
        }
    }
    let root = merkle::over(&nodes, &all).ok_or_else(missing)?;
    let note = key.sign(&Checkpoint { origin: key.origin(tenant), size, root });
    let of_size = audit_checkpoint::Entity::find_by_id((tenant, signed(size)));
    // Another replica, or the owner of another key, was first.
    if of_size.one(&transaction).await?.is_none() {
        let row = audit_checkpoint::ActiveModel {
            tenant_id: Set(tenant),
            size: Set(signed(size)),
            note: Set(note.clone()),
            ..Default::default()
        };
        audit_checkpoint::Entity::insert(row).exec_without_returning(&transaction).await?;
        transaction.commit().await?;
    }
    Ok(Ok(Made::Note(note)))
}

/// The command line reads with the owner's rights, too.
fn to_read(access: Access) -> Access {
    if access == Access::Operate { access } else { Access::Read }
}

fn missing() -> DbErr {
    DbErr::Custom("a node of the audit log's Merkle tree is missing".to_owned())
}

/// Keeps the nodes of the subtrees that are complete in a tree of the larger size, and were not in one of the smaller. What is
/// there already is compared: it was not signed yet.
async fn extend(
    pool: &Pool,
    access: Access,
    tenant: TenantId,
    sizes: Range<u64>,
) -> Result<Result<(), Refused>, DbErr> {
    let mut group = sizes.start / WIDTH;
    let last = sizes.end / WIDTH;
    if sizes.start == 0 {
        // Also where there is no complete group.
        let transaction = pool.begin(tenant, to_read(access)).await?;
        if groups(&transaction, tenant, 0..1).await?.is_none() {
            return Ok(Err(Refused::NoBeginning));
        }
    }
    while group < last {
        let batch = group..last.min(group + GROUPS);
        let transaction = pool.begin(tenant, access).await?;
        let Some(hashes) = groups(&transaction, tenant, batch.clone()).await? else {
            return Ok(Err(Refused::NoBeginning));
        };
        if let Err(position) = keep(&transaction, tenant, 1, group, &hashes).await? {
            return Ok(Err(Refused::OtherNode(1, position)));
        }
        transaction.commit().await?;
        group = batch.end;
    }
    let (mut level, mut first, mut last) = (2, sizes.start / WIDTH / WIDTH, last / WIDTH);
    while last > 0 {
        for position in first..last {
            let transaction = pool.begin(tenant, access).await?;
            let Some(hash) = tree::above(&transaction, tenant, level - 1, position).await? else {
                return Err(missing());
            };
            if let Err(position) = keep(&transaction, tenant, level, position, &[hash]).await? {
                return Ok(Err(Refused::OtherNode(level, position)));
            }
            transaction.commit().await?;
        }
        (level, first, last) = (level + 1, first / WIDTH, last / WIDTH);
    }
    Ok(Ok(()))
}
