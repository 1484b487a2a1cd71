//! A user: someone who may act, in exactly one tenant.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a user may do; each may do what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema,
)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read.
    Viewer,
    /// Read and write.
    Member,
    /// Everything within the tenant.
    Admin,
}

/// One row of `users`.
#[sea_orm::model]
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The tenant it belongs to, for good.
    pub tenant_id: Uuid,
    /// Unique among the tenant's live users, whatever its case.
    pub email: String,
    /// The subject by which the identity provider knows this person.
    pub external_idp_id: Option<String>,
    /// As the person writes it.
    pub full_name: Option<String>,
    /// What this user may do.
    pub role: Role,
    /// When this user last logged in.
    pub last_login_at: Option<TimeDateTimeWithTimeZone>,
    /// When the row was made.
    pub created_at: TimeDateTimeWithTimeZone,
    /// When the row last changed.
    pub updated_at: TimeDateTimeWithTimeZone,
    /// When the user was deleted; the row stays.
    pub deleted_at: Option<TimeDateTimeWithTimeZone>,
    /// The tenant it belongs to.
    #[sea_orm(belongs_to, from = "tenant_id", to = "id")]
    pub tenant: BelongsTo<super::tenant::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
