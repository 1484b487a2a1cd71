//! The caller's own tenant.

use crate::audit::Action;
use crate::context::{Admin, Require, TenantContext};
use crate::entity::tenant::{self, Entity, Model};
use crate::error::ApiError;
use crate::input::JsonBody;
use crate::resource::{
    AuthErrors, BodyErrors, IfMatch, PreconditionFailed, Text, changed, get_row, update_row, with_etag,
};
use crate::tenancy::Table;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

/// Returns the caller's tenant.
#[utoipa::path(
    get, path = "/tenant", operation_id = "getTenant", tag = "tenant", security(("bearer" = [])),
    responses(
        (status = 200, body = Model, description = "The tenant as it is now.", headers(("ETag", description = "The row's version."))),
        AuthErrors,
    )
)]
pub(crate) async fn get(context: TenantContext) -> Result<Response, ApiError> {
    get_row::<Entity>(&context, context.caller.tenant_id).await
}

/// Omitted fields are unchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateTenant {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "Saint Mary's Hospital")]
    name: Option<Text<255>>,
}

/// Updates the caller's tenant.
///
/// Only its name can be changed here: its status and its keys are the operator's.
#[utoipa::path(
    patch, path = "/tenant", operation_id = "updateTenant", tag = "tenant", security(("bearer" = [])), request_body = UpdateTenant,
    params(("If-Match" = Option<String>, Header, description = "The ETag of the version that is expected.")),
    responses(
        (status = 200, body = Model, description = "The tenant as it is now.", headers(("ETag", description = "The row's version."))),
        AuthErrors, BodyErrors, PreconditionFailed,
    )
)]
pub(crate) async fn update(
    Require(context, ..): Require<Admin>,
    version: IfMatch,
    JsonBody(changes): JsonBody<UpdateTenant>,
) -> Result<Response, ApiError> {
    let id = context.caller.tenant_id;
    let changes = tenant::ActiveModel { name: changed(changes.name), ..Default::default() };
    let event = context.event(Action::Updated, Entity::NAME).on(id);
    let row = context.change(event, async |tx| update_row::<Entity>(tx, id, &version, changes).await).await?;
    Ok(with_etag::<Entity>(StatusCode::OK, &row))
}
