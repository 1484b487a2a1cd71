//! What a proof about the tenant's audit log is made of.

use super::transaction::TenantTransaction;
use crate::audit::{self, StoredCheckpoint};
use crate::entity::{audit_checkpoint, audit_log};
use crate::error::ApiError;
use crate::merkle::{self, Hash};
use crate::note::SigningKey;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::ops::Range;

impl TenantTransaction {
    /// The newest checkpoint that this key has signed; without a key the newest there is.
    pub(crate) async fn newest_checkpoint(
        &self,
        key: Option<&SigningKey>,
    ) -> Result<Option<StoredCheckpoint>, ApiError> {
        let (transaction, tenant) = self.parts();
        Ok(audit::newest_checkpoint(transaction, tenant, key).await?)
    }

    /// The note of the checkpoint of this size, if one was made.
    pub(crate) async fn checkpoint_of(&self, size: i64) -> Result<Option<String>, ApiError> {
        let (transaction, tenant) = self.parts();
        let row = audit_checkpoint::Entity::find_by_id((tenant, size)).one(transaction).await?;
        Ok(row.map(|row| row.note))
    }

    /// The entry of this number.
    pub(crate) async fn entry(&self, sequence: i64) -> Result<Option<audit_log::Model>, ApiError> {
        use audit_log::Column;
        let (transaction, tenant) = self.parts();
        let entries = audit_log::Entity::find().filter(Column::TenantId.eq(tenant));
        Ok(entries.filter(Column::Sequence.eq(sequence)).one(transaction).await?)
    }

    /// The hashes over these ranges of leaves, which subtrees of a tree over the log have; `None` where one cannot be computed.
    pub(crate) async fn hashes(&self, ranges: &[Range<u64>]) -> Result<Option<Vec<Hash>>, ApiError> {
        let (transaction, tenant) = self.parts();
        let nodes = audit::load(transaction, tenant, ranges).await?;
        Ok(ranges.iter().map(|range| merkle::over(&nodes, range)).collect())
    }
}
