//! A document: what is known of a file that is stored elsewhere.

use super::JsonText;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far the file's processing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
#[schema(as = DocumentStatus)]
pub enum Status {
    /// Under way.
    Processing,
    /// Done.
    Completed,
    /// Ended without a result.
    Failed,
}

/// One row of `documents`.
#[sea_orm::model]
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "documents")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The tenant it belongs to, for good.
    pub tenant_id: Uuid,
    /// The user who owns it; of the same tenant.
    pub user_id: Uuid,
    /// Where the file lies in its bucket: `TENANT_ID/...`.
    pub storage_key: String,
    /// The bucket it lies in.
    pub bucket: String,
    /// What people call it.
    pub filename: String,
    /// Its media type (RFC 6838).
    pub content_type: String,
    /// Its size in bytes.
    pub size_bytes: i64,
    /// How far its processing is.
    pub status: Status,
    /// What else is known of it: a JSON object.
    pub metadata: JsonText,
    /// When the row was made.
    pub created_at: TimeDateTimeWithTimeZone,
    /// When the row last changed.
    pub updated_at: TimeDateTimeWithTimeZone,
    /// When it was deleted; the row stays.
    pub deleted_at: Option<TimeDateTimeWithTimeZone>,
}

impl ActiveModelBehavior for ActiveModel {}
