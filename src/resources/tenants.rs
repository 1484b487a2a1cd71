//! The caller's own tenant.

use crate::audit::Action;
use crate::context::{Admin, Require, TenantContext};
use crate::entity::tenant::{self, Entity, Model};
use crate::error::ApiError;
use crate::input::JsonBody;
use crate::resource::{
    AuthErrors, BodyErrors, Change, IfMatch, IfNoneMatch, PreconditionFailed, Prefer, Text, changed, get_row,
    update_row,
};
use crate::tenancy::Table;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

/// Returns the caller's tenant.
#[utoipa::path(
    get, path = "/tenant", operation_id = "getTenant", tag = "tenant", security(("bearer" = [])),
    params(("If-None-Match" = Option<String>, Header, description = "ETags of versions that the caller has.")),
    responses(
        (status = 200, body = Model, description = "The tenant as it is now.", headers(("ETag", description = "The row's version."))),
        (status = 304, description = "The caller has this version."),
        AuthErrors,
    )
)]
pub(crate) async fn get(context: TenantContext, known: IfNoneMatch) -> Result<Response, ApiError> {
    get_row::<Entity>(&context, context.caller.tenant_id, &known).await
}

/// Omitted fields are unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateTenant {
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", example = "Saint Mary's Hospital")]
    name: Change<Text<255>>,
}

/// Updates the caller's tenant.
///
/// Only its name can be changed here: its status and its keys are the operator's.
#[utoipa::path(
    patch, path = "/tenant", operation_id = "updateTenant", tag = "tenant", security(("bearer" = [])), request_body = UpdateTenant,
    params(
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that is expected."),
        ("Prefer" = Option<String>, Header, description = "`return=minimal`: the answer has headers alone."),
    ),
    responses(
        (status = 200, body = Model, description = "The tenant as it is now.", headers(("ETag", description = "The row's version."))),
        (status = 204, description = "As 200, for `Prefer: return=minimal`.", headers(("ETag", description = "The row's version."))),
        AuthErrors, BodyErrors, PreconditionFailed,
    )
)]
pub(crate) async fn update(
    Require(context, ..): Require<Admin>,
    version: IfMatch,
    prefer: Prefer,
    JsonBody(changes): JsonBody<UpdateTenant>,
) -> Result<Response, ApiError> {
    let id = context.caller.tenant_id;
    let changes = tenant::ActiveModel { name: changed(changes.name), ..Default::default() };
    let event = context.event(Action::Updated, Entity::NAME).on(id);
    let row = context.change(event, async |tx| update_row::<Entity>(tx, id, &version, changes).await).await?;
    Ok(prefer.answer::<Entity>(StatusCode::OK, StatusCode::NO_CONTENT, &row))
}
