//! The caller's own tenant.

use super::resource::{BodyRefused, Expected, Lost, Refused, Text, change, read, tagged};
use crate::api::body::Body;
use crate::auth::{Admin, Principal};
use crate::entity::tenant::{self, Status};
use crate::error::ApiError;
use crate::server::AppState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sea_orm::ActiveValue::{NotSet, Set};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
pub(crate) struct Tenant {
    id: Uuid,
    #[schema(example = "Saint Mary's Clinic")]
    name: String,
    /// What the identity provider calls it.
    #[schema(example = "st-marys")]
    external_id: String,
    status: Status,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: OffsetDateTime,
}

impl From<tenant::Model> for Tenant {
    fn from(row: tenant::Model) -> Self {
        let tenant::Model { id, name, external_id, status, created_at, updated_at, .. } = row;
        Self { id, name, external_id, status, created_at, updated_at }
    }
}

/// The caller's tenant.
#[utoipa::path(
    get, path = "/tenant", operation_id = "getTenant", tag = "tenant", security(("bearer" = [])),
    responses((status = 200, body = Tenant, description = "The tenant as it is now", headers(("ETag", description = "Its version"))), Refused)
)]
pub(crate) async fn get(State(state): State<AppState>, principal: Principal) -> Result<Response, ApiError> {
    let row = read::<tenant::Entity>(&state, principal.actor(), principal.tenant_id).await?;
    Ok(tagged::<tenant::Entity, Tenant>(StatusCode::OK, row))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantChanges {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "Saint Mary's Hospital")]
    name: Option<Text<255>>,
}

/// Renames the caller's tenant. Its status and its keys are the operator's to change.
#[utoipa::path(
    patch, path = "/tenant", operation_id = "changeTenant", tag = "tenant", security(("bearer" = [])), request_body = TenantChanges,
    params(("If-Match" = Option<String>, Header, description = "The ETag of the version to change")),
    responses((status = 200, body = Tenant, description = "The tenant as it is now", headers(("ETag", description = "Its version"))), Refused, BodyRefused, Lost)
)]
pub(crate) async fn update(
    State(state): State<AppState>,
    Admin(principal): Admin,
    expected: Expected,
    Body(body): Body<TenantChanges>,
) -> Result<Response, ApiError> {
    let work = state.tenancy.write(principal.actor()).await?;
    let fields = body.name.iter().map(|_| "name").collect();
    let name = body.name.map_or(NotSet, |name| Set(name.0));
    let changes = tenant::ActiveModel { name, ..Default::default() };
    let row = change::<tenant::Entity>(work, principal.tenant_id, &expected, changes, fields).await?;
    Ok(tagged::<tenant::Entity, Tenant>(StatusCode::OK, row))
}
