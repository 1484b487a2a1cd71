//! Documents: metadata of files that are stored elsewhere.

use crate::config::Settings;
use crate::context::Caller;
use crate::entity::JsonText;
use crate::entity::user::{self, Role};
use crate::error::{ApiError, ErrorCode};
use crate::ids::{TenantId, UserId};
use crate::resource::{Change, Resource, SizeBytes, Text, changed, json_object};
use crate::tenancy::TenantTransaction;
use crate::{row_id, tenant_table};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::Condition;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

row_id!(
    /// The id of a document.
    DocumentId
);

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
    #[schema(value_type = HashMap<String, Value>, example = json!({"pages": 3}))]
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

tenant_table!(
    self, "documents", tenant: TenantId, audited: Some(Column::Status),
    unique: [("documents_live_file", "storage_key")]
);

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DocumentFilter {
    /// Only documents of this status.
    status: Option<Status>,
    /// Only documents that this user owns.
    #[param(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
// What is omitted here depends on the tenant.
#[schema(example = json!({
    "bucket": "clinic-documents", "filename": "scan.pdf", "content_type": "application/pdf", "size_bytes": 48_213,
    "metadata": {"pages": 3},
}))]
pub(crate) struct NewDocument {
    /// The user who owns it; the caller where it is omitted.
    #[schema(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    /// The file's key in its bucket: the tenant's id, and more parts of letters, digits, `-`, `_` and `.`, each after a slash; made
    /// from the document's id where it is omitted.
    #[schema(value_type = Option<String>, max_length = 1024, pattern = "^[0-9a-f-]{36}(/[A-Za-z0-9._-]+)+$")]
    storage_key: Option<Text<1024>>,
    /// Lowercase letters, digits, `-`, `_` and `.`, without two dots side by side.
    #[schema(
        value_type = String, min_length = 3, max_length = 63, pattern = "^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$",
        example = "clinic-documents"
    )]
    bucket: Bucket,
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "scan.pdf")]
    filename: Text<255>,
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "application/pdf")]
    content_type: Text<255>,
    /// In bytes.
    #[schema(value_type = i64, minimum = 0, example = 48_213)]
    size_bytes: SizeBytes,
    /// `processing` where it is omitted.
    status: Option<Status>,
    /// Further properties: 64 KiB at most (the instance's MAX_METADATA_BYTES), 1000 members and items, 32 levels; no name
    /// twice in an object, and no number that an IEEE 754 double would change.
    #[schema(value_type = Option<HashMap<String, Value>>, example = json!({"pages": 3}))]
    metadata: Option<Box<RawValue>>,
}

/// Omitted fields are unchanged. The file stays where it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"filename": "scan-2.pdf", "status": "completed"}))]
pub(crate) struct UpdateDocument {
    /// The new owner.
    #[serde(default)]
    #[schema(value_type = Uuid, required = false)]
    user_id: Change<UserId>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "scan.pdf")]
    filename: Change<Text<255>>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "application/pdf")]
    content_type: Change<Text<255>>,
    /// In bytes.
    #[serde(default)]
    #[schema(value_type = i64, required = false, minimum = 0, example = 48_213)]
    size_bytes: Change<SizeBytes>,
    #[serde(default)]
    #[schema(value_type = Status, required = false)]
    status: Change<Status>,
    /// Replaces the whole object. Its bounds are those of a new document.
    #[serde(default)]
    #[schema(value_type = HashMap<String, Value>, required = false, example = json!({"pages": 3}))]
    metadata: Change<Box<RawValue>>,
}

impl Resource for Entity {
    const SINGULAR: &'static str = "Document";
    const DESCRIPTION: &'static str = "The documents of the caller's tenant: what is known of files stored elsewhere.";
    const READ: Role = Role::Viewer;
    const WRITE: Role = Role::Member;
    const DELETE_NOTE: &'static str = "Its file is not deleted.";
    const CREATE_ERRORS: &'static [ErrorCode] = &[ErrorCode::NotFound];
    type Filter = DocumentFilter;
    type New = NewDocument;
    type Changes = UpdateDocument;

    fn condition(filter: DocumentFilter) -> Condition {
        Condition::all()
            .add_option(filter.status.map(|status| Column::Status.eq(status)))
            .add_option(filter.user_id.map(|owner| Column::UserId.eq(owner)))
    }

    fn new_row(new: NewDocument, caller: &Caller, settings: &Settings) -> Result<ActiveModel, ApiError> {
        let id = DocumentId(Uuid::now_v7());
        let owner = new.user_id.or(caller.user_id).ok_or_else(|| {
            let detail = "the caller has no user of its own: name the document's owner";
            ApiError::detailed(ErrorCode::MissingField, detail).of_field("user_id".to_owned())
        })?;
        let empty = RawValue::from_string("{}".to_owned()).map_err(|error| ApiError::internal(&error))?;
        let metadata = json_object("metadata", &new.metadata.unwrap_or(empty), settings.max_metadata_bytes)?;
        Ok(ActiveModel {
            id: Set(id),
            user_id: Set(owner),
            storage_key: Set(storage_key(caller.tenant_id, id, new.storage_key)?),
            bucket: Set(new.bucket.0),
            filename: Set(new.filename.into()),
            content_type: Set(new.content_type.into()),
            size_bytes: Set(new.size_bytes.into()),
            status: Set(new.status.unwrap_or(Status::Processing)),
            metadata: Set(metadata),
            ..Default::default()
        })
    }

    fn changes(changes: UpdateDocument, settings: &Settings) -> Result<ActiveModel, ApiError> {
        Ok(ActiveModel {
            user_id: changed(changes.user_id),
            filename: changed(changes.filename),
            content_type: changed(changes.content_type),
            size_bytes: changed(changes.size_bytes),
            status: changed(changes.status),
            metadata: match changes.metadata.value() {
                Some(text) => Set(json_object("metadata", &text, settings.max_metadata_bytes)?),
                None => NotSet,
            },
            ..Default::default()
        })
    }

    /// The owner must be a live user of the tenant.
    async fn before_write(
        tx: &mut TenantTransaction,
        _: Option<DocumentId>,
        row: &ActiveModel,
    ) -> Result<(), ApiError> {
        if let Set(owner) = row.user_id {
            tx.require::<user::Entity>("user_id", owner);
        }
        Ok(())
    }
}

/// The name of a bucket, by the rule that S3 and Google Cloud Storage share but for `_`, which S3 refuses:
/// 3 to 63 lowercase letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, and no two dots side by side
/// (docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html, docs.cloud.google.com/storage/docs/buckets).
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Bucket(String);

impl TryFrom<String> for Bucket {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = (3..=63).contains(&name.len())
            && name.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'))
            && name.starts_with(plain)
            && name.ends_with(plain)
            && !name.contains("..");
        if good {
            return Ok(Self(name));
        }
        Err(
            "must be 3 to 63 lowercase letters, digits, -, _ and ., with a letter or digit at both ends and no two dots side by side",
        )
    }
}

/// A key within the tenant's own prefix. Whoever opens the file may decode the key, or join it to a path: so it has none of
/// the characters that a decoder changes or a path gives a meaning, but for the slash, and no part that leads elsewhere.
/// The database checks the same.
fn storage_key(tenant: TenantId, id: DocumentId, key: Option<Text<1024>>) -> Result<String, ApiError> {
    let Some(key) = key.map(String::from) else { return Ok(format!("{tenant}/{id}")) };
    let is_plain = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
            && part.bytes().any(|byte| byte != b'.')
    };
    if key.strip_prefix(&format!("{tenant}/")).is_some_and(|path| path.split('/').all(is_plain)) {
        return Ok(key);
    }
    let detail =
        format!("storage_key must begin with {tenant}/; its parts are letters, digits, -, _ and ., and not dots alone");
    Err(ApiError::detailed(ErrorCode::InvalidInput, detail).of_field("storage_key".to_owned()))
}
