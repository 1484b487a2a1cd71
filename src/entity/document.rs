//! The table of documents: metadata of files that are stored elsewhere. Its rows are the answers of the API.

use super::JsonText;
use crate::ids::{DocumentId, TenantId, UserId};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of the file's processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
#[schema(as = DocumentStatus)]
pub enum Status {
    /// It goes on.
    Processing,
    /// It has succeeded.
    Completed,
    /// It has failed.
    Failed,
}

/// One row of `documents`.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel, Serialize, ToSchema)]
#[schema(as = Document)]
#[sea_orm(table_name = "documents")]
pub struct Model {
    /// UUID v7.
    #[sea_orm(primary_key, auto_increment = false)]
    #[schema(value_type = Uuid)]
    pub id: DocumentId,
    /// The tenant it belongs to, for good.
    #[serde(skip)]
    pub tenant_id: TenantId,
    /// The user who owns it.
    #[schema(value_type = Uuid)]
    pub user_id: UserId,
    /// The file's key in its bucket: `TENANT_ID/...`.
    #[schema(example = "0193b7a6-7c1e-7d4c-9f1b-2f6f7f3e9a10/scans/4711.pdf")]
    pub storage_key: String,
    /// The file's bucket.
    #[schema(example = "clinic-documents")]
    pub bucket: String,
    /// The file's name.
    #[schema(example = "scan.pdf")]
    pub filename: String,
    /// The file's media type (RFC 6838).
    #[schema(example = "application/pdf")]
    pub content_type: String,
    /// The file's size in bytes.
    #[schema(minimum = 0, example = 48_213)]
    pub size_bytes: i64,
    /// The state of the file's processing.
    pub status: Status,
    /// Further properties.
    #[schema(value_type = Object, example = json!({"pages": 3}))]
    pub metadata: JsonText,
    /// When the document was created.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: TimeDateTimeWithTimeZone,
    /// When the document last changed.
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
