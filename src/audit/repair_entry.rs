//! The entries that say that they repair a chain.

use super::chain::AuditEntry;
use super::event::Action;
use super::walk::{Break, Place, entries};
use crate::database::Transaction;
use crate::entity::audit_log::{self, Column};
use crate::ids::TenantId;
use aws_lc_rs::digest::{Context, SHA256};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the entry of a repair says in its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The first place where the chain did not hold.
    #[serde(rename = "break")]
    pub broken: Break,
    /// The last place before it, up to which the chain held.
    pub intact: Place,
    /// The end of the chain as it was recorded then, if it was.
    pub head: Option<Place>,
    /// SHA-256 of the entries that stood behind `intact` then, in hexadecimal.
    pub remains: String,
}

impl Repair {
    /// From an entry; `None` where it is no repair.
    pub(super) fn of(entry: &AuditEntry) -> Option<Self> {
        serde_json::from_value(entry.metadata.clone()).ok()
    }
}

/// A repair that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// What it says.
    pub repair: Repair,
    /// The number of its entry.
    pub sequence: i64,
    /// When: RFC 3339, UTC.
    pub at: String,
}

/// The entries that say that they repair the chain, oldest first.
pub(super) async fn repairs(transaction: &Transaction, tenant: TenantId) -> Result<Vec<AuditEntry>, DbErr> {
    let rows = audit_log::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Action.eq(Action::ChainRepaired.name()))
        .order_by_asc(Column::Sequence)
        .all(transaction)
        .await?;
    Ok(rows.into_iter().map(|row| AuditEntry::from_row(row).0).collect())
}

/// SHA-256 of entries as they are there: of each the canonical form and the stored hash, a line each.
#[derive(Clone)]
pub(super) struct Remains(Context);

impl Remains {
    /// Of no entries.
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds the next entry.
    pub(super) fn add(&mut self, entry: &AuditEntry, hash: &str) -> Result<(), serde_json::Error> {
        for part in [entry.canonical()?.as_slice(), b"\n", hash.as_bytes(), b"\n"] {
            self.0.update(part);
        }
        Ok(())
    }

    /// In hexadecimal.
    pub(super) fn digest(self) -> String {
        hex::encode(self.0.finish())
    }
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}

/// What is there of the entries between two numbers.
pub(super) async fn remains(
    transaction: &Transaction,
    tenant: TenantId,
    after: i64,
    before: i64,
) -> Result<String, DbErr> {
    let (mut remains, mut last) = (Remains::new(), after);
    loop {
        let batch = entries(transaction, tenant, last, before - 1).await?;
        let Some((newest, _)) = batch.last() else { break };
        last = newest.sequence;
        for (entry, hash) in batch {
            remains.add(&entry, &hash).map_err(|error| DbErr::Json(error.to_string()))?;
        }
    }
    Ok(remains.digest())
}
