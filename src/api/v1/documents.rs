//! The documents of the caller's tenant: what is known of files that are stored elsewhere.

use super::resource::{
    BodyRefused, Clash, Expected, Id, List, Lost, NoRow, Refused, RestoredId, Text, change, create as insert,
    delete as remove, list as page, read, restore as bring_back, tagged,
};
use super::users::set;
use crate::api::body::{Body, Parameters};
use crate::audit::{Action, Event};
use crate::auth::{Member, Principal};
use crate::entity::document::{self, Status};
use crate::entity::{JsonText, user};
use crate::error::{ApiError, ErrorCode};
use crate::json::{self, Bounds, Fault};
use crate::server::AppState;
use crate::tenancy::{Resource, UnitOfWork};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sea_orm::ActiveValue::Set;
use sea_orm::ColumnTrait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
pub(crate) struct Document {
    id: Uuid,
    /// The user who owns it.
    user_id: Uuid,
    /// Where the file lies in its bucket.
    #[schema(example = "0193b7a6-7c1e-7d4c-9f1b-2f6f7f3e9a10/scans/4711.pdf")]
    storage_key: String,
    #[schema(example = "clinic-documents")]
    bucket: String,
    #[schema(example = "scan.pdf")]
    filename: String,
    #[schema(example = "application/pdf")]
    content_type: String,
    /// In bytes.
    #[schema(minimum = 0, example = 48_213)]
    size_bytes: i64,
    status: Status,
    /// What else is known of it.
    #[schema(value_type = Object, example = json!({"pages": 3}))]
    metadata: JsonText,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: OffsetDateTime,
}

impl From<document::Model> for Document {
    fn from(row: document::Model) -> Self {
        let document::Model { id, user_id, storage_key, bucket, filename, content_type, size_bytes, status, .. } = row;
        let document::Model { metadata, created_at, updated_at, .. } = row;
        Self {
            id,
            user_id,
            storage_key,
            bucket,
            filename,
            content_type,
            size_bytes,
            status,
            metadata,
            created_at,
            updated_at,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DocumentFilter {
    /// Only documents that are as far as this.
    status: Option<Status>,
    /// Only documents of this user.
    user_id: Option<Uuid>,
    /// How many documents a page has: 1 to 200; 50 where it is left out.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u64>,
    /// Where the page begins: the `next_cursor` of the one before.
    cursor: Option<String>,
}

/// The documents of the caller's tenant, newest first.
#[utoipa::path(
    get, path = "/documents", operation_id = "listDocuments", tag = "documents", security(("bearer" = [])), params(DocumentFilter),
    responses((status = 200, body = List<Document>, description = "A page of them"), Refused)
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    principal: Principal,
    Parameters(filter): Parameters<DocumentFilter>,
) -> Result<Response, ApiError> {
    page::<document::Entity, Document>(&state, principal.actor(), filter.cursor.as_deref(), filter.limit, |find| {
        find.filter_some(filter.status, |status| document::Column::Status.eq(status))
            .filter_some(filter.user_id, |owner| document::Column::UserId.eq(owner))
    })
    .await
}

/// A size in bytes: not below nothing.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Size(i64);

impl TryFrom<i64> for Size {
    type Error = &'static str;

    fn try_from(bytes: i64) -> Result<Self, Self::Error> {
        if bytes >= 0 { Ok(Self(bytes)) } else { Err("must be 0 or more") }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDocument {
    /// The user who owns it; the caller where it is left out.
    user_id: Option<Uuid>,
    /// Where the file lies in its bucket: the tenant's id, a slash, and more; made from the document's id where it is
    /// left out.
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
    size_bytes: Size,
    /// `processing` where it is left out.
    status: Option<Status>,
    /// What else is known of it: 64 KiB at most (the instance's MAX_METADATA_BYTES), 1000 members and items, 32 levels; no
    /// name twice in an object, and no number that an IEEE 754 double would change.
    #[schema(value_type = Option<Object>, example = json!({"pages": 3}))]
    metadata: Option<Box<RawValue>>,
}

/// Makes a document.
#[utoipa::path(
    post, path = "/documents", operation_id = "createDocument", tag = "documents", security(("bearer" = [])), request_body = NewDocument,
    responses(
        (status = 201, body = Document, description = "Made", headers(("ETag", description = "Its version"), ("Location", description = "Where it is"))),
        Refused, BodyRefused, NoRow, Clash
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Member(principal): Member,
    Body(body): Body<NewDocument>,
) -> Result<Response, ApiError> {
    let owner = body.user_id.or(principal.user_id).ok_or_else(|| {
        let what = "the caller has no user of its own: say whose the document is";
        ApiError::detailed(ErrorCode::MissingField, what).of_field("user_id".to_owned())
    })?;
    let (id, tenant) = (Uuid::now_v7(), principal.tenant_id);
    let storage_key = body.storage_key.map_or_else(|| format!("{tenant}/{id}"), |key| key.0);
    // The database holds it to this, too: no document cites another tenant's file.
    // A path in it could lead whoever opens the file to another tenant's.
    let leads_out = |path: &str| path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if storage_key.strip_prefix(&format!("{tenant}/")).is_none_or(leads_out) {
        let what = format!("storage_key must begin with {tenant}/, and have no part that is empty, . or ..");
        return Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field("storage_key".to_owned()));
    }
    let metadata = match body.metadata {
        Some(text) => storable(&text, &state)?,
        None => JsonText::new(&json!({})).map_err(|error| ApiError::internal(&error))?,
    };
    let work = state.tenancy.write(principal.actor()).await?;
    let work = of_live_owner(work, owner).await?;
    let row = document::ActiveModel {
        id: Set(id),
        user_id: Set(owner),
        storage_key: Set(storage_key),
        bucket: Set(body.bucket.0),
        filename: Set(body.filename.0),
        content_type: Set(body.content_type.0),
        size_bytes: Set(body.size_bytes.0),
        status: Set(body.status.unwrap_or(Status::Processing)),
        metadata: Set(metadata),
        ..Default::default()
    };
    let row = insert::<document::Entity>(work, row).await?;
    let location = [(header::LOCATION, format!("/api/v1/documents/{}", row.id))];
    Ok((location, tagged::<document::Entity, Document>(StatusCode::CREATED, row)).into_response())
}

/// One document.
#[utoipa::path(
    get, path = "/documents/{id}", operation_id = "getDocument", tag = "documents", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The document's id")),
    responses((status = 200, body = Document, description = "The document as it is now", headers(("ETag", description = "Its version"))), Refused, NoRow)
)]
pub(crate) async fn get(State(state): State<AppState>, principal: Principal, Id(id): Id) -> Result<Response, ApiError> {
    let row = read::<document::Entity>(&state, principal.actor(), id).await?;
    Ok(tagged::<document::Entity, Document>(StatusCode::OK, row))
}

/// What is left out stays as it is. The file stays where it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentChanges {
    /// The user who is to own it.
    user_id: Option<Uuid>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "scan.pdf")]
    filename: Option<Text<255>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "application/pdf")]
    content_type: Option<Text<255>>,
    /// In bytes.
    #[schema(value_type = Option<i64>, minimum = 0, example = 48_213)]
    size_bytes: Option<Size>,
    status: Option<Status>,
    /// Takes the place of all that was there. Its bounds are those of a new document.
    #[schema(value_type = Option<Object>, example = json!({"pages": 3}))]
    metadata: Option<Box<RawValue>>,
}

/// Changes a document.
#[utoipa::path(
    patch, path = "/documents/{id}", operation_id = "changeDocument", tag = "documents", security(("bearer" = [])), request_body = DocumentChanges,
    params(
        ("id" = Uuid, Path, description = "The document's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version to change"),
    ),
    responses(
        (status = 200, body = Document, description = "The document as it is now", headers(("ETag", description = "Its version"))),
        Refused, BodyRefused, NoRow, Lost
    )
)]
pub(crate) async fn update(
    State(state): State<AppState>,
    Member(principal): Member,
    Id(id): Id,
    expected: Expected,
    Body(body): Body<DocumentChanges>,
) -> Result<Response, ApiError> {
    let metadata = body.metadata.map(|text| storable(&text, &state)).transpose()?;
    let mut fields = Vec::new();
    let changes = document::ActiveModel {
        user_id: set(body.user_id, "user_id", &mut fields),
        filename: set(body.filename.map(|text| text.0), "filename", &mut fields),
        content_type: set(body.content_type.map(|text| text.0), "content_type", &mut fields),
        size_bytes: set(body.size_bytes.map(|size| size.0), "size_bytes", &mut fields),
        status: set(body.status, "status", &mut fields),
        metadata: set(metadata, "metadata", &mut fields),
        ..Default::default()
    };
    let mut work = state.tenancy.write(principal.actor()).await?;
    if let Some(owner) = body.user_id {
        work = of_live_owner(work, owner).await?;
    }
    let row = change::<document::Entity>(work, id, &expected, changes, fields).await?;
    Ok(tagged::<document::Entity, Document>(StatusCode::OK, row))
}

/// Deletes a document, not its file; `:restore` brings it back.
#[utoipa::path(
    delete, path = "/documents/{id}", operation_id = "deleteDocument", tag = "documents", security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The document's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version to delete"),
    ),
    responses((status = 204, description = "Deleted"), Refused, NoRow, Lost)
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Member(principal): Member,
    Id(id): Id,
    expected: Expected,
) -> Result<StatusCode, ApiError> {
    let work = state.tenancy.write(principal.actor()).await?;
    remove::<document::Entity>(work, id, &expected).await
}

/// Brings a deleted document back.
#[utoipa::path(
    post, path = "/documents/{id}:restore", operation_id = "restoreDocument", tag = "documents", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The document's id")),
    responses((status = 200, body = Document, description = "The document as it is now", headers(("ETag", description = "Its version"))), Refused, NoRow, Clash)
)]
pub(crate) async fn restore(
    State(state): State<AppState>,
    Member(principal): Member,
    RestoredId(id): RestoredId,
) -> Result<Response, ApiError> {
    let row = bring_back::<document::Entity>(&state, principal.actor(), id).await?;
    Ok(tagged::<document::Entity, Document>(StatusCode::OK, row))
}

/// Goes on with the work where the tenant has this user. Another tenant's user is as good as none.
async fn of_live_owner(work: UnitOfWork, owner: Uuid) -> Result<UnitOfWork, ApiError> {
    if work.find::<user::Entity>().live().one(owner).await?.is_some() {
        return Ok(work);
    }
    let missing = ApiError::detailed(ErrorCode::NotFound, "there is no such user").of_field("user_id".to_owned());
    let event = Event::new(Action::DataAccess, user::Entity::NAME).on(owner).with("found", false);
    Err(work.refuse(event, missing).await)
}

/// The most members of objects and items of arrays that a document's metadata may have, all together.
const MOST_VALUES: usize = 1000;

/// Metadata as it is stored: an object within bounds, which comes back as it was sent.
fn storable(text: &RawValue, state: &AppState) -> Result<JsonText, ApiError> {
    let refused =
        |code, what: String| Err(ApiError::detailed(code, format!("metadata: {what}")).of_field("metadata".to_owned()));
    let most = state.settings.max_metadata_bytes;
    if text.get().len() as u64 > u64::from(most) {
        return refused(ErrorCode::InvalidInput, format!("it has more than {most} bytes (MAX_METADATA_BYTES)"));
    }
    match json::parse(text, Bounds { values: MOST_VALUES, exact_numbers: true }) {
        // PostgreSQL's jsonb has no place for U+0000 (postgresql.org/docs/current/datatype-json.html).
        Ok(metadata) if holds_nul(&metadata) => {
            refused(ErrorCode::InvalidInput, "it must not hold the character U+0000".to_owned())
        }
        Ok(metadata @ Value::Object(_)) => JsonText::new(&metadata).map_err(|error| ApiError::internal(&error)),
        Ok(_) => refused(ErrorCode::InvalidInput, "it must be an object".to_owned()),
        Err(fault @ Fault::NotJson(_)) => refused(ErrorCode::BadFormat, fault.to_string()),
        Err(fault) => refused(ErrorCode::InvalidInput, fault.to_string()),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
