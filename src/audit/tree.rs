//! The Merkle tree over a tenant's entries, as it is in the database: the leaves are the hashes in `audit_logs`, and
//! `audit_nodes` has the roots of complete subtrees.

use super::archive::archived_count;
use crate::database::Transaction;
use crate::entity::{audit_log, audit_node};
use crate::ids::TenantId;
use crate::merkle::{self, Hash, Nodes, WIDTH};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::ExprTrait;
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use std::collections::HashMap;
use std::ops::Range;

/// The hash of the leaf of an entry that was stored with this hash. The leaf's data is the hash's 32 bytes, and what else is stored
/// there as it is.
pub(super) fn leaf(hash: &str) -> Hash {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match hex::decode(hash) {
        Ok(bytes) if hash.bytes().all(is_digit) => merkle::leaf(&bytes),
        _ => merkle::leaf(hash.as_bytes()),
    }
}

/// The hash of the leaf of a number that no entry has: its data is empty.
pub(super) fn no_leaf() -> Hash {
    merkle::leaf(&[])
}

/// As the database counts.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The hashes that a log has for the leaves of this range, by position.
async fn leaves(
    transaction: &Transaction,
    tenant: TenantId,
    ranges: &[Range<u64>],
) -> Result<HashMap<u64, Hash>, DbErr> {
    use audit_log::Column;
    let mut which = Condition::any();
    for range in ranges {
        let (after, end) = (Column::Sequence.gt(signed(range.start)), Column::Sequence.lte(signed(range.end)));
        which = which.add(after.and(end));
    }
    let rows = audit_log::Entity::find()
        .select_only()
        .columns([Column::Sequence, Column::Hash])
        .filter(Column::TenantId.eq(tenant))
        .filter(which)
        .into_tuple::<(i64, String)>()
        .all(transaction)
        .await?;
    Ok(rows.into_iter().filter_map(|(number, hash)| Some((u64::try_from(number - 1).ok()?, leaf(&hash)))).collect())
}

/// What the hashes over these ranges are made of; two queries.
pub(crate) async fn load(transaction: &Transaction, tenant: TenantId, ranges: &[Range<u64>]) -> Result<Nodes, DbErr> {
    use audit_node::Column;
    let mut rows = merkle::rows(ranges);
    let mut nodes = Nodes::new();
    if let Some(bottom) = rows.remove(&0) {
        let leaves = leaves(transaction, tenant, &bottom).await?;
        // What is archived had a leaf, and nobody knows it any more.
        let is_whole = bottom.iter().cloned().flatten().all(|at| leaves.contains_key(&at));
        let archived = if is_whole { 0 } else { archived_count(transaction, tenant).await? };
        let there = bottom.into_iter().flatten().filter(|at| signed(*at) >= archived);
        nodes.extend(there.map(|at| ((0, at), leaves.get(&at).copied().unwrap_or_else(no_leaf))));
    }
    if rows.is_empty() {
        return Ok(nodes);
    }
    let mut which = Condition::any();
    for (level, ranges) in &rows {
        for range in ranges {
            let from = Column::Level.eq(i64::from(*level)).and(Column::Position.gte(signed(range.start)));
            which = which.add(from.and(Column::Position.lt(signed(range.end))));
        }
    }
    let found = audit_node::Entity::find().filter(Column::TenantId.eq(tenant)).filter(which).all(transaction).await?;
    nodes.extend(found.into_iter().filter_map(|row| {
        let place = (u32::try_from(row.level).ok()?, u64::try_from(row.position).ok()?);
        Some((place, row.hash.try_into().ok()?))
    }));
    Ok(nodes)
}

/// The roots of so many groups of entries from the group `first` on; `None` where the log does not begin with its first entry.
pub(super) async fn groups(
    transaction: &Transaction,
    tenant: TenantId,
    groups: Range<u64>,
) -> Result<Option<Vec<Hash>>, DbErr> {
    let range = groups.start * WIDTH..groups.end * WIDTH;
    let leaves = leaves(transaction, tenant, std::slice::from_ref(&range)).await?;
    if range.start == 0 && !leaves.contains_key(&0) {
        return Ok(None);
    }
    let hash = |at: u64| leaves.get(&at).copied().unwrap_or_else(no_leaf);
    let group = |group: u64| {
        let hashes: Vec<Hash> = (group * WIDTH..(group + 1) * WIDTH).map(hash).collect();
        merkle::whole(&hashes)
    };
    Ok(Some(groups.map(group).collect()))
}

/// The root over the 256 nodes of a level that a node of the next one, at this position, is made of.
pub(super) async fn above(
    transaction: &Transaction,
    tenant: TenantId,
    level: u32,
    position: u64,
) -> Result<Option<Hash>, DbErr> {
    use audit_node::Column;
    let rows = audit_node::Entity::find()
        .select_only()
        .column(Column::Hash)
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Level.eq(i64::from(level)))
        .filter(Column::Position.gte(signed(position * WIDTH)))
        .filter(Column::Position.lt(signed((position + 1) * WIDTH)))
        .order_by_asc(Column::Position)
        .into_tuple::<Vec<u8>>()
        .all(transaction)
        .await?;
    let hashes: Option<Vec<Hash>> = rows.into_iter().map(|hash| hash.try_into().ok()).collect();
    Ok(hashes.filter(|hashes| hashes.len() as u64 == WIDTH).map(|hashes| merkle::whole(&hashes)))
}

/// Keeps nodes of a level, from `first` on; the position of one that is there already, and is another.
pub(super) async fn keep(
    transaction: &Transaction,
    tenant: TenantId,
    level: u32,
    first: u64,
    hashes: &[Hash],
) -> Result<Result<(), u64>, DbErr> {
    use audit_node::Column;
    let rows = audit_node::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Level.eq(i64::from(level)))
        .filter(Column::Position.gte(signed(first)))
        .filter(Column::Position.lt(signed(first + hashes.len() as u64)))
        .order_by_asc(Column::Position)
        .all(transaction)
        .await?;
    let there: HashMap<i64, Vec<u8>> = rows.into_iter().map(|row| (row.position, row.hash)).collect();
    let mut new = Vec::new();
    for (hash, position) in hashes.iter().zip(first..) {
        match there.get(&signed(position)) {
            Some(other) if other == hash => {}
            Some(_) => return Ok(Err(position)),
            None => new.push(audit_node::ActiveModel {
                tenant_id: Set(tenant),
                level: Set(i64::from(level)),
                position: Set(signed(position)),
                hash: Set(hash.to_vec()),
            }),
        }
    }
    if !new.is_empty() {
        audit_node::Entity::insert_many(new).exec_without_returning(transaction).await?;
    }
    Ok(Ok(()))
}
