//! What all resources have in common: their six operations, the description of these in OpenAPI, ETags and If-Match, and
//! their audit entries. A resource is a type that implements [`Resource`], in a file of [`crate::resources`].

mod fields;
mod handlers;
mod idempotency;
mod json_object;
mod list;
#[allow(unused_qualifications, reason = "the derive of a generic schema writes one")]
mod openapi;
mod precondition;
mod prefer;

pub(crate) use fields::{Change, Email, SizeBytes, Text, Timestamp, changed, changed_or_cleared};
pub(crate) use handlers::{get_row, update_row};
pub(crate) use idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED};
pub(crate) use json_object::json_object;
pub(crate) use list::{ListQuery, PageQuery, Parameters, cursor_error};
pub(crate) use openapi::{
    AuthErrors, BodyErrors, CallbackErrors, List, LogoutErrors, NotFound, PreconditionFailed, PublicErrors,
    error_examples, list_name, routes,
};
pub(crate) use precondition::{IfMatch, IfNoneMatch};
pub(crate) use prefer::{PREFER, PREFERENCE_APPLIED, Prefer};

use crate::config::Settings;
use crate::context::{Caller, Permission};
use crate::entity::user::Role;
use crate::error::{ApiError, ErrorCode};
use crate::tenancy::{IdOf, Table, TenantScoped, TenantTransaction};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use sea_orm::Condition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A resource of the API, kept in a table of the tenant's. Its rows are its answers.
pub(crate) trait Resource: Table<Model: Serialize + ToSchema + Send> {
    /// The name of one row, as operation ids have it: `Document`.
    const SINGULAR: &'static str;
    /// What the documentation says of the resource.
    const DESCRIPTION: &'static str;
    /// The role that may read.
    const READ: Role;
    /// The role that may create, update, delete and restore.
    const WRITE: Role;
    /// What the documentation says of an update, besides that it is one.
    const UPDATE_NOTE: &'static str = "";
    /// What the documentation says of a deletion, besides that it is one.
    const DELETE_NOTE: &'static str = "";
    /// The errors of its own rules.
    const CREATE_ERRORS: &'static [ErrorCode] = &[];
    /// The errors of its own rules.
    const UPDATE_ERRORS: &'static [ErrorCode] = &[];
    /// The errors of its own rules.
    const DELETE_ERRORS: &'static [ErrorCode] = &[];

    /// The query parameters that narrow a list, besides `limit` and `cursor`.
    type Filter: DeserializeOwned + IntoParams + Send;
    /// The body that creates a row.
    type New: DeserializeOwned + ToSchema + Send;
    /// The body that updates a row, of a [`Change`] for each field.
    type Changes: DeserializeOwned + ToSchema + Send;

    /// The rows that a filter asks for.
    fn condition(filter: Self::Filter) -> Condition;

    /// A new row, from a body that is checked without the database. It gets an id where it has none.
    fn new_row(new: Self::New, caller: &Caller, settings: &Settings) -> Result<Self::ActiveModel, ApiError>;

    /// The columns that a body changes; checked without the database.
    fn changes(changes: Self::Changes, settings: &Settings) -> Result<Self::ActiveModel, ApiError>;

    /// Rules that need the database, before a row is created, or the row of this id is updated. `row` has the columns that
    /// are set.
    fn before_write(
        _tx: &mut TenantTransaction,
        _id: Option<IdOf<Self>>,
        _row: &Self::ActiveModel,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }

    /// Rules that need the database, before the row of this id is deleted.
    fn before_delete(
        _tx: &mut TenantTransaction,
        _id: IdOf<Self>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }
}

/// The resource's part of a path: its name, with hyphens.
fn path<R: Resource>() -> String {
    R::NAME.replace('_', "-")
}

/// The permission to read a resource.
pub(crate) struct Read<R>(PhantomData<R>);

impl<R: Resource> Permission for Read<R> {
    const ROLE: Role = R::READ;
}

/// The permission to change a resource.
pub(crate) struct Write<R>(PhantomData<R>);

impl<R: Resource> Permission for Write<R> {
    const ROLE: Role = R::WRITE;
}

/// The id, in a path, of a row of `T`.
pub(crate) struct Id<T: TenantScoped>(pub(crate) IdOf<T>);

impl<S: Send + Sync, T: TenantScoped> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| ErrorCode::NotFound)?;
        let refused = |_| ApiError::detailed(ErrorCode::BadFormat, "the id must be a UUID").of_field("id".to_owned());
        Uuid::try_parse(&text).map(|id| Self(id.into())).map_err(refused)
    }
}
