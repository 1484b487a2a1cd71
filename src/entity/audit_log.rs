//! The table of audit entries. It is append-only: `audit` writes it, the API lists it.

use crate::ids::{AuditLogId, TenantId, UserId};
use sea_orm::entity::prelude::*;

/// One row of `audit_logs`.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_logs")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AuditLogId,
    /// The tenant in whose chain it stands.
    pub tenant_id: TenantId,
    /// Its place in the chain: 1, 2, 3, without a gap.
    pub sequence: i64,
    /// Who did it, where the tenant has a row for them.
    pub user_id: Option<UserId>,
    /// What was done, such as `DATA_ACCESS`.
    pub action: String,
    /// To what kind of thing.
    pub resource_type: String,
    /// To which one.
    pub resource_id: Option<Uuid>,
    /// From which address; PostgreSQL writes `inet` with the length of its network.
    #[sea_orm(column_type = "custom(\"inet\")", select_as = "text", save_as = "inet")]
    pub ip: Option<String>,
    /// With which program, as it says itself.
    pub user_agent: Option<String>,
    /// What else is known of it; no patient data.
    pub metadata: Json,
    /// When.
    pub created_at: TimeDateTimeWithTimeZone,
    /// The hash of the entry before it, in hexadecimal; 64 zeros for the first.
    pub prev_hash: String,
    /// SHA-256 of its own canonical form, in hexadecimal.
    pub hash: String,
}

/// Relations are queries of their own.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
