//! The audit log of the caller's tenant.

use super::resource::{List, Refused, Text, limit};
use crate::api::body::Parameters;
use crate::audit::{Action, Entry, Event};
use crate::auth::Admin;
use crate::entity::audit_log::{self, Column};
use crate::error::{ApiError, ErrorCode};
use crate::server::AppState;
use axum::extract::State;
use axum::response::Response;
use sea_orm::ColumnTrait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
pub(crate) struct AuditLog {
    id: Uuid,
    /// Its place in the tenant's chain: 1, 2, 3, without a gap.
    #[schema(example = 42)]
    sequence: i64,
    /// Who did it, where the tenant has a user for them.
    user_id: Option<Uuid>,
    #[schema(value_type = Action)]
    action: String,
    #[schema(example = "documents")]
    resource_type: String,
    resource_id: Option<Uuid>,
    #[schema(example = "203.0.113.9")]
    ip: Option<String>,
    #[schema(example = "Mozilla/5.0")]
    user_agent: Option<String>,
    /// What else is known of it: ids, codes and names of fields.
    #[schema(value_type = Object, example = json!({"fields": ["role"]}))]
    metadata: Value,
    #[schema(format = DateTime, example = "2026-11-24T09:30:00.000000Z")]
    created_at: String,
    /// The hash of the entry before it.
    #[schema(example = "0000000000000000000000000000000000000000000000000000000000000000")]
    prev_hash: String,
    /// SHA-256 of this entry's canonical form, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    hash: String,
}

impl From<audit_log::Model> for AuditLog {
    fn from(row: audit_log::Model) -> Self {
        let (entry, hash) = Entry::of_row(row);
        Self {
            id: entry.id,
            sequence: entry.sequence,
            user_id: entry.user_id,
            action: entry.action,
            resource_type: entry.resource_type,
            resource_id: entry.resource_id,
            ip: entry.ip,
            user_agent: entry.user_agent,
            metadata: entry.metadata,
            created_at: entry.created_at,
            prev_hash: entry.prev_hash,
            hash,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditFilter {
    /// Only entries of this action.
    action: Option<Action>,
    /// Only what this user did.
    user_id: Option<Uuid>,
    /// Only what was done to things of this kind: `users`, `documents`, `tenants`.
    #[param(value_type = Option<String>, example = "documents")]
    resource_type: Option<Text<64>>,
    /// Only what was done to this one; goes with `resource_type`.
    resource_id: Option<Uuid>,
    /// How many entries a page has: 1 to 200; 50 where it is left out.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u64>,
    /// Where the page begins: the `next_cursor` of the one before.
    cursor: Option<String>,
}

/// The audit log of the caller's tenant, newest first.
#[utoipa::path(
    get, path = "/audit-logs", operation_id = "listAuditLogs", tag = "audit", security(("bearer" = [])), params(AuditFilter),
    responses((status = 200, body = List<AuditLog>, description = "A page of it"), Refused)
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Parameters(filter): Parameters<AuditFilter>,
) -> Result<Response, ApiError> {
    let limit = limit(filter.limit)?;
    let before = filter.cursor.as_deref().map(str::parse::<i64>).transpose().map_err(|_| {
        ApiError::detailed(ErrorCode::BadFormat, "cursor must be the next_cursor of a page")
            .of_field("cursor".to_owned())
    })?;
    if filter.resource_id.is_some() && filter.resource_type.is_none() {
        let what = "resource_id goes with resource_type";
        return Err(ApiError::detailed(ErrorCode::MissingField, what).of_field("resource_type".to_owned()));
    }
    let turn = state.pages.turn(principal.tenant_id).await;
    let work = state.tenancy.read(principal.actor()).await?;
    let (mut rows, mut read) = (state.pages.begin(), None);
    let put = |row: audit_log::Model| {
        let sequence = row.sequence;
        let taken = rows.push(&AuditLog::from(row))?;
        if taken {
            let [_, newest] = *read.get_or_insert([sequence, sequence]);
            read = Some([sequence, newest]);
        }
        Ok(taken)
    };
    let next = work
        .find::<audit_log::Entity>()
        .filter_some(filter.action, |action| Column::Action.eq(action.name()))
        .filter_some(filter.user_id, |user| Column::UserId.eq(user))
        .filter_some(filter.resource_type, |kind| Column::ResourceType.eq(kind.0))
        .filter_some(filter.resource_id, |id| Column::ResourceId.eq(id))
        .by_number((Column::Sequence, |row| row.sequence), before, limit, put)
        .await?;
    drop(turn);
    let read = read.map(Vec::from);
    work.finish(Event::new(Action::DataAccess, "audit_logs").with("sequences", read)).await?;
    rows.answer(next.map(|number| number.to_string()).as_deref())
}
