//! Documents: metadata of files that are stored elsewhere.

use crate::config::Settings;
use crate::context::Caller;
use crate::entity::document::{self, ActiveModel, Column, Entity, Status};
use crate::entity::user::{self, Role};
use crate::error::{ApiError, ErrorCode};
use crate::ids::{DocumentId, TenantId, UserId};
use crate::resource::{Resource, SizeBytes, Text, changed, json_object};
use crate::tenancy::TenantTransaction;
use crate::tenant_table;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ColumnTrait, Condition};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

tenant_table!(
    document, "documents", tenant: TenantId, audited: Status,
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
pub(crate) struct NewDocument {
    /// The user who owns it; the caller where it is omitted.
    #[schema(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    /// The file's key in its bucket: the tenant's id, a slash, and more; made from the document's id where it is omitted.
    #[schema(value_type = Option<String>, max_length = 1024)]
    storage_key: Option<Text<1024>>,
    #[schema(value_type = String, min_length = 1, max_length = 255, example = "clinic-documents")]
    bucket: Text<255>,
    #[schema(value_type = String, min_length = 1, max_length = 255, example = "scan.pdf")]
    filename: Text<255>,
    #[schema(value_type = String, min_length = 1, max_length = 255, example = "application/pdf")]
    content_type: Text<255>,
    /// In bytes.
    #[schema(value_type = i64, minimum = 0, example = 48_213)]
    size_bytes: SizeBytes,
    /// `processing` where it is omitted.
    status: Option<Status>,
    /// Further properties: 64 KiB at most (the instance's MAX_METADATA_BYTES), 1000 members and items, 32 levels; no name
    /// twice in an object, and no number that an IEEE 754 double would change.
    #[schema(value_type = Option<Object>, example = json!({"pages": 3}))]
    metadata: Option<Box<RawValue>>,
}

/// Omitted fields are unchanged. The file stays where it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateDocument {
    /// The new owner.
    #[schema(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "scan.pdf")]
    filename: Option<Text<255>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "application/pdf")]
    content_type: Option<Text<255>>,
    /// In bytes.
    #[schema(value_type = Option<i64>, minimum = 0, example = 48_213)]
    size_bytes: Option<SizeBytes>,
    status: Option<Status>,
    /// Replaces the whole object. Its bounds are those of a new document.
    #[schema(value_type = Option<Object>, example = json!({"pages": 3}))]
    metadata: Option<Box<RawValue>>,
}

impl Resource for Entity {
    const SINGULAR: &'static str = "Document";
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
            bucket: Set(new.bucket.into()),
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
            metadata: match changes.metadata {
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
        match row.user_id {
            Set(owner) => tx.require::<user::Entity>("user_id", owner).await,
            _ => Ok(()),
        }
    }
}

/// A key within the tenant's own prefix. The database checks the prefix, too. Parts such as `..` could lead whoever opens
/// the file to another tenant's.
fn storage_key(tenant: TenantId, id: DocumentId, key: Option<Text<1024>>) -> Result<String, ApiError> {
    let Some(key) = key.map(String::from) else { return Ok(format!("{tenant}/{id}")) };
    let leaves_prefix = |path: &str| path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if key.strip_prefix(&format!("{tenant}/")).is_some_and(|path| !leaves_prefix(path)) {
        return Ok(key);
    }
    let detail = format!("storage_key must begin with {tenant}/, and have no part that is empty, . or ..");
    Err(ApiError::detailed(ErrorCode::InvalidInput, detail).of_field("storage_key".to_owned()))
}
