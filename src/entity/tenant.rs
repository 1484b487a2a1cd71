//! A tenant: a customer whose data is kept apart from everyone else's.

use crate::ids::TenantId;
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
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel, Serialize, ToSchema)]
#[schema(as = Tenant)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    #[schema(value_type = Uuid)]
    pub id: TenantId,
    /// Its name.
    #[schema(example = "Saint Mary's Clinic")]
    pub name: String,
    /// Its name at the identity provider, as the tenant claim of tokens has it.
    #[schema(example = "st-marys")]
    #[sea_orm(unique)]
    pub external_id: String,
    /// Whether it may be served.
    pub status: Status,
    /// The ARN of the key that its files are encrypted with.
    #[serde(skip)]
    pub kms_key_arn: Option<String>,
    /// When the tenant was created.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: TimeDateTimeWithTimeZone,
    /// When the tenant last changed.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: TimeDateTimeWithTimeZone,
    /// When it was deleted; the row stays.
    #[serde(skip)]
    pub deleted_at: Option<TimeDateTimeWithTimeZone>,
}

/// Relations are queries of their own.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
