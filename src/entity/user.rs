//! A user: someone who may act, in exactly one tenant.

use crate::ids::{TenantId, UserId};
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
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel, Serialize, ToSchema)]
#[schema(as = User)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    #[schema(value_type = Uuid)]
    pub id: UserId,
    /// The tenant it belongs to, for good.
    #[serde(skip)]
    pub tenant_id: TenantId,
    /// Unique among the tenant's live users, whatever its case.
    #[schema(format = Email, example = "ada@example.org")]
    pub email: String,
    /// The subject by which the identity provider knows this person.
    #[schema(example = "auth0|5f7c8ec7c33c6c004bbafe82")]
    pub external_idp_id: Option<String>,
    /// The name as the person writes it.
    #[schema(example = "Ada Lovelace")]
    pub full_name: Option<String>,
    /// What this user may do.
    pub role: Role,
    /// When this user last logged in.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_login_at: Option<TimeDateTimeWithTimeZone>,
    /// When the user was created.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: TimeDateTimeWithTimeZone,
    /// When the user last changed.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: TimeDateTimeWithTimeZone,
    /// When the user was deleted; the row stays.
    #[serde(skip)]
    pub deleted_at: Option<TimeDateTimeWithTimeZone>,
}

/// Relations are queries of their own.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
