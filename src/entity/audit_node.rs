//! The table of nodes of the Merkle trees over the audit log: `audit` writes it.

use crate::ids::TenantId;
use sea_orm::entity::prelude::*;

/// One row of `audit_nodes`: the root of a complete subtree.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_nodes")]
pub struct Model {
    /// The tenant whose log it is of.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: TenantId,
    /// 1 for the root of 256 entries, 2 for that of 65536.
    #[sea_orm(primary_key, auto_increment = false)]
    pub level: i64,
    /// Its place among those of its level, from 0.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    /// 32 bytes.
    pub hash: Vec<u8>,
}

/// Relations are queries of their own.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
