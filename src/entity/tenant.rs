//! A tenant: a customer whose data is kept apart from everyone else's.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a tenant may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
#[schema(as = TenantStatus)]
pub enum Status {
    /// A paying customer.
    Active,
    /// Shut out: every request of this tenant is refused.
    Suspended,
    /// Trying the service out.
    Trial,
}

/// One row of `tenants`.
#[sea_orm::model]
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What the identity provider calls it; a token's tenant claim is matched against this.
    #[sea_orm(unique)]
    pub external_id: String,
    /// Whether it may be served.
    pub status: Status,
    /// The ARN of the key that its files are encrypted with.
    pub kms_key_arn: Option<String>,
    /// When the row was made.
    pub created_at: TimeDateTimeWithTimeZone,
    /// When the row last changed.
    pub updated_at: TimeDateTimeWithTimeZone,
    /// When it was deleted; the row stays.
    pub deleted_at: Option<TimeDateTimeWithTimeZone>,
    /// Its users.
    #[sea_orm(has_many)]
    pub users: HasMany<super::user::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
