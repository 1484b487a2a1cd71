//! The audit log of the caller's tenant.

use super::resource::{Id, List, NoRow, Refused, Text, limit};
use crate::api::body::Parameters;
use crate::audit::{Action, Entry, Event, Shown};
use crate::auth::Admin;
use crate::entity::audit_log::{self, Column};
use crate::entity::{document, user};
use crate::error::{ApiError, ErrorCode};
use crate::server::AppState;
use crate::tenancy::{Resource, Trail, UnitOfWork};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use sea_orm::{ColumnTrait, Condition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};
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

/// A time by RFC 3339, rounded up to the microseconds that entries have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Instant(OffsetDateTime);

impl TryFrom<String> for Instant {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WHAT: &str = "must be a time by RFC 3339, such as 2026-11-24T09:30:00Z";
        let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| WHAT)?;
        let short = (1000 - i64::from(at.nanosecond() % 1000)) % 1000;
        let at = at.checked_add(Duration::nanoseconds(short)).ok_or(WHAT)?;
        at.checked_to_offset(UtcOffset::UTC).map(Self).ok_or(WHAT)
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
    /// Only what was done to this one, and lists that showed it; goes with `resource_type`. One request looks through
    /// 20,000 entries at most, so a page may be short, or empty: go on until `next_cursor` is null.
    resource_id: Option<Uuid>,
    /// Only entries from this time on (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-24T00:00:00Z")]
    since: Option<Instant>,
    /// Only entries before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-25T00:00:00Z")]
    until: Option<Instant>,
    /// How many entries a page has: 1 to 200; 50 where it is left out.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u64>,
    /// Where the page begins: the `next_cursor` of the one before.
    cursor: Option<String>,
}

/// The audit log of the caller's tenant, newest first.
///
/// It is in the order of `sequence`; with `since` or `until` in the order of `created_at`, which is the same unless a clock was
/// set back. A page may have fewer entries than `limit`, or none: go on until `next_cursor` is null.
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
    let no_cursor = || {
        ApiError::detailed(ErrorCode::BadFormat, "cursor must be the next_cursor of a page")
            .of_field("cursor".to_owned())
    };
    let after = filter.cursor.as_deref().map(str::parse::<i64>).transpose().map_err(|_| no_cursor())?;
    if filter.since.zip(filter.until).is_some_and(|(since, until)| since > until) {
        let what = "since must not be later than until";
        return Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field("since".to_owned()));
    }
    let kind = filter.resource_type.map(|kind| kind.0);
    if filter.resource_id.is_some() && kind.is_none() {
        let what = "resource_id goes with resource_type";
        return Err(ApiError::detailed(ErrorCode::MissingField, what).of_field("resource_type".to_owned()));
    }
    // A list is nothing but read.
    let by_list = filter.action.is_none_or(|action| action == Action::DataAccess);
    let trail = Trail {
        since: filter.since.map(|since| since.0),
        until: filter.until.map(|until| until.0),
        narrow: Condition::all()
            .add_option(filter.action.map(|action| Column::Action.eq(action.name())))
            .add_option(filter.user_id.map(|user| Column::UserId.eq(user)))
            .add_option(kind.as_ref().map(|kind| Column::ResourceType.eq(kind)))
            .add_option(filter.resource_id.filter(|_| !by_list).map(|id| Column::ResourceId.eq(id))),
        thing: kind.zip(filter.resource_id.filter(|_| by_list)),
        after,
        limit,
    };
    let turn = state.pages.turn(principal.tenant_id).await;
    let work = state.tenancy.read(principal.actor()).await?;
    let page = work.find::<audit_log::Entity>().trail(trail).await?.ok_or_else(no_cursor)?;
    drop(turn);
    let (mut rows, mut numbers, mut next) = (state.pages.begin(), Vec::new(), page.next);
    for row in page.rows {
        let number = row.sequence;
        if !rows.push(&AuditLog::from(row))? {
            next = numbers.last().copied();
            break;
        }
        numbers.push(number);
    }
    let read = numbers.iter().min().zip(numbers.iter().max()).map(|(oldest, newest)| vec![*oldest, *newest]);
    work.finish(Event::new(Action::DataAccess, "audit_logs").with("sequences", read)).await?;
    rows.answer(next.map(|number| number.to_string()).as_deref())
}

/// One entry of the audit log.
#[utoipa::path(
    get, path = "/audit-logs/{id}", operation_id = "getAuditLog", tag = "audit", security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The entry's id")),
    responses((status = 200, body = AuditLogEntry, description = "The entry"), Refused, NoRow)
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Id(id): Id,
) -> Result<Json<AuditLogEntry>, ApiError> {
    let work = state.tenancy.read(principal.actor()).await?;
    let looked = Event::new(Action::DataAccess, "audit_logs").on(id);
    let Some(row) = work.find::<audit_log::Entity>().one(id).await? else {
        return Err(work.refuse(looked.with("found", false), ErrorCode::NotFound.into()).await);
    };
    let resource_ids = shown(&work, &row).await?;
    work.finish(looked.with("found", true)).await?;
    Ok(Json(AuditLogEntry { entry: row.into(), resource_ids }))
}

/// The ids of the rows that a list showed, deleted ones included.
async fn shown(work: &UnitOfWork, entry: &audit_log::Model) -> Result<Option<Vec<Uuid>>, ApiError> {
    let Some(shown) = Shown::of(&entry.metadata).filter(|_| entry.action == Action::DataAccess.name()) else {
        return Ok(None);
    };
    Ok(match (shown, entry.resource_type.as_str()) {
        (Shown::Ids(ids), _) => Some(ids),
        (Shown::Ends(ends), user::Entity::NAME) => Some(work.find::<user::Entity>().ending(&ends).await?),
        (Shown::Ends(ends), document::Entity::NAME) => Some(work.find::<document::Entity>().ending(&ends).await?),
        _ => None,
    })
}
