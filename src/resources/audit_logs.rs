//! The audit log of the caller's tenant.

use super::documents;
use crate::app::AppState;
use crate::audit::{Action, AuditEntry, Shown};
use crate::context::{Admin, Require};
use crate::entity::audit_log::{self, Column};
use crate::entity::user;
use crate::error::{ApiError, ErrorCode};
use crate::ids::{AuditLogId, UserId};
use crate::resource::{AuthErrors, Id, List, ListQuery, NotFound, PageQuery, Text, Timestamp, cursor_error, list_name};
use crate::tenancy::{Table, TenantTransaction, Trail};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use sea_orm::{ColumnTrait, Condition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};
use uuid::Uuid;

/// A page of the log: a type of its own, as the document writes out the rows of generic ones.
pub(crate) struct AuditLogList;

impl utoipa::PartialSchema for AuditLogList {
    fn schema() -> RefOr<Schema> {
        <List<AuditLog> as utoipa::PartialSchema>::schema()
    }
}

impl ToSchema for AuditLogList {
    fn name() -> Cow<'static, str> {
        list_name::<AuditLog>().into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((AuditLog::name().into_owned(), <AuditLog as utoipa::PartialSchema>::schema()));
        AuditLog::schemas(schemas);
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AuditLog {
    #[schema(value_type = Uuid)]
    id: AuditLogId,
    /// Its place in the tenant's chain: 1, 2, 3, without a gap.
    #[schema(example = 42)]
    sequence: i64,
    /// Who did it, where the tenant has a user for them.
    #[schema(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    #[schema(value_type = Action)]
    action: String,
    #[schema(example = "documents")]
    resource_type: String,
    resource_id: Option<Uuid>,
    #[schema(example = "203.0.113.9")]
    ip: Option<String>,
    /// The programs that the client names, each with the first two numbers of its version; nothing else of User-Agent.
    #[schema(example = "Mozilla/5.0 Firefox/130.0")]
    user_agent: Option<String>,
    /// What else is known of it: ids, codes and names of fields.
    #[schema(value_type = HashMap<String, Value>, example = json!({"fields": ["role"]}))]
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

/// An entry, and of a list the rows that it showed.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditLogEntry {
    #[serde(flatten)]
    entry: AuditLog,
    /// The ids of the rows that were on the page, where this is the entry of a list; else null.
    resource_ids: Option<Vec<Uuid>>,
}

impl From<audit_log::Model> for AuditLog {
    fn from(row: audit_log::Model) -> Self {
        let (entry, hash) = AuditEntry::from_row(row);
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
    #[param(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    /// Only what was done to things of this kind: `users`, `documents`, `tenants`.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64)]
    resource_type: Option<Text<64>>,
    /// Only what was done to this one, and lists that showed it; goes with `resource_type`. One request looks through
    /// 20,000 entries at most, so a page may be short, or empty: go on until `next_cursor` is null.
    resource_id: Option<Uuid>,
    /// Only entries from this time on (RFC 3339), such as `2026-11-24T00:00:00Z`.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only entries before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

/// The audit log of the caller's tenant, newest first.
///
/// It is in the order of `sequence`; with `since` or `until` in the order of `created_at`, which is the same unless a clock was
/// set back. A page may have fewer entries than `limit`, or none: go on until `next_cursor` is null.
#[utoipa::path(
    get, path = "/audit-logs", operation_id = "listAuditLogs", tag = "audit", security(("bearer" = [])), params(AuditFilter, PageQuery),
    responses((status = 200, body = AuditLogList, description = "A page of the list."), AuthErrors)
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Require(context, ..): Require<Admin>,
    ListQuery(page, filter): ListQuery<AuditFilter>,
) -> Result<Response, ApiError> {
    let limit = page.size()?;
    let after = page.cursor.as_deref().map(str::parse::<i64>).transpose().map_err(|_| cursor_error())?;
    if filter.since.zip(filter.until).is_some_and(|(since, until)| since > until) {
        let what = "since must not be later than until";
        return Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field("since".to_owned()));
    }
    let kind = filter.resource_type.map(String::from);
    if filter.resource_id.is_some() && kind.is_none() {
        let what = "resource_id goes with resource_type";
        return Err(ApiError::detailed(ErrorCode::MissingField, what).of_field("resource_type".to_owned()));
    }
    // A list is nothing but read.
    let by_list = filter.action.is_none_or(|action| action == Action::DataAccess);
    let trail = Trail {
        since: filter.since.map(OffsetDateTime::from),
        until: filter.until.map(OffsetDateTime::from),
        narrow: Condition::all()
            .add_option(filter.action.map(|action| Column::Action.eq(action.name())))
            .add_option(filter.user_id.map(|user| Column::UserId.eq(user)))
            .add_option(kind.as_ref().map(|kind| Column::ResourceType.eq(kind)))
            .add_option(filter.resource_id.filter(|_| !by_list).map(|id| Column::ResourceId.eq(id))),
        thing: kind.zip(filter.resource_id.filter(|_| by_list)),
        after,
        limit,
    };
    let mut rows = state.pages.begin();
    let next = context
        .read(context.event(Action::DataAccess, "audit_logs"), async |tx| {
            let page = tx.find::<audit_log::Entity>().trail(trail).await?.ok_or_else(cursor_error)?;
            let (mut sequences, mut next) = (Vec::new(), page.next);
            for row in page.rows {
                let sequence = row.sequence;
                if !rows.push(&AuditLog::from(row))? {
                    next = sequences.last().copied();
                    break;
                }
                sequences.push(sequence);
            }
            let read = sequences.iter().min().zip(sequences.iter().max());
            tx.event().add("sequences", read.map(|(oldest, newest)| vec![*oldest, *newest]));
            Ok(next)
        })
        .await?;
    rows.answer(next.map(|number| number.to_string()).as_deref())
}

/// One entry of the audit log.
#[utoipa::path(
    get, path = "/audit-logs/{id}", operation_id = "getAuditLog", tag = "audit", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The entry's id")),
    responses((status = 200, body = AuditLogEntry, description = "The entry."), AuthErrors, NotFound)
)]
pub(crate) async fn get(
    Require(context, ..): Require<Admin>,
    Id(id): Id<audit_log::Entity>,
) -> Result<Json<AuditLogEntry>, ApiError> {
    let event = context.event(Action::DataAccess, "audit_logs").on(id);
    let entry = context.read(event, async |tx| {
        let row = tx.find::<audit_log::Entity>().one(id).await?;
        tx.event().set_found(row.is_some());
        let row = row.ok_or(ErrorCode::NotFound)?;
        let resource_ids = shown(tx, &row).await?;
        Ok(AuditLogEntry { entry: row.into(), resource_ids })
    });
    Ok(Json(entry.await?))
}

/// The ids of the rows that a list showed, deleted ones included.
async fn shown(tx: &TenantTransaction, entry: &audit_log::Model) -> Result<Option<Vec<Uuid>>, ApiError> {
    let Some(shown) = Shown::of(&entry.metadata).filter(|_| entry.action == Action::DataAccess.name()) else {
        return Ok(None);
    };
    Ok(match (shown, entry.resource_type.as_str()) {
        (Shown::Ids(ids), _) => Some(ids),
        (Shown::Ends(ends), user::Entity::NAME) => Some(tx.find::<user::Entity>().ending(&ends).await?),
        (Shown::Ends(ends), documents::Entity::NAME) => Some(tx.find::<documents::Entity>().ending(&ends).await?),
        _ => None,
    })
}
