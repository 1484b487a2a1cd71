//! What resources have in common: lists, ids, ETags, and the errors that any of their operations may answer.

use crate::audit::{self, Action, Actor, Event};
use crate::error::{ApiError, ErrorBody, ErrorCode};
use crate::server::AppState;
use crate::tenancy::{Cursor, Find, Resource, UnitOfWork};
use crate::text::NonBlank;
use axum::Json;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, HeaderMapExt, IfMatch};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

/// How many rows a page has where the caller does not say.
const LIMIT: u64 = 50;

/// The longest page.
const LONGEST: u64 = 200;

/// How many rows of a page are asked for: 1 to 200.
pub(super) fn limit(asked: Option<u64>) -> Result<u64, ApiError> {
    let limit = asked.unwrap_or(LIMIT);
    if (1..=LONGEST).contains(&limit) {
        return Ok(limit);
    }
    let what = format!("limit must be 1 to {LONGEST}");
    Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field("limit".to_owned()))
}

/// Where a page begins.
fn cursor(given: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let refused = || {
        ApiError::detailed(ErrorCode::BadFormat, "cursor must be the next_cursor of a page")
            .of_field("cursor".to_owned())
    };
    given.map(|text| Cursor::decode(text).ok_or_else(refused)).transpose()
}

/// A page of a list, newest first.
#[derive(ToSchema)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) struct List<T> {
    /// The page's rows: as many as are asked for, or fewer where they would be too long together.
    items: Vec<T>,
    /// Send it as `cursor` for the next page; null behind the last one.
    #[schema(example = "AAZGuJ1i8VgBk2uA3EF7cb9r2hYVtq9E")]
    next_cursor: Option<String>,
}

/// The id of a path.
pub(crate) struct Id(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| ErrorCode::NotFound)?;
        id(&text).map(Self)
    }
}

/// The id of a path that ends in `:restore`.
pub(crate) struct RestoredId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for RestoredId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| ErrorCode::NotFound)?;
        id(text.strip_suffix(":restore").ok_or(ErrorCode::MethodNotAllowed)?).map(Self)
    }
}

fn id(text: &str) -> Result<Uuid, ApiError> {
    let refused = |_| ApiError::detailed(ErrorCode::BadFormat, "the id must be a UUID").of_field("id".to_owned());
    Uuid::try_parse(text).map_err(refused)
}

/// What a version of a row is called: its last change, which no two of its versions share (RFC 9110, section 8.8.3).
fn tag(updated_at: OffsetDateTime) -> String {
    format!("\"{:x}\"", updated_at.unix_timestamp_nanos() / 1000)
}

/// A row as `T`, with the ETag of its version.
pub(super) fn tagged<E: Resource, T: From<E::Model> + Serialize>(status: StatusCode, row: E::Model) -> Response {
    let tag = HeaderValue::from_str(&tag(E::updated_at(&row)));
    let mut response = (status, Json(T::from(row))).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Reads a live row of the caller's tenant.
pub(super) async fn read<E: Resource>(state: &AppState, actor: Actor, id: Uuid) -> Result<E::Model, ApiError> {
    let work = state.tenancy.read(actor).await?;
    let Some(row) = work.find::<E>().live().one(id).await? else { return Err(not_found::<E>(work, id).await) };
    work.finish(looked::<E>().on(id).with("found", true)).await?;
    Ok(row)
}

/// Answers with a page of live rows of the caller's tenant, each as `T`; `narrow` adds to the query.
pub(super) async fn list<E: Resource, T: From<E::Model> + Serialize>(
    state: &AppState,
    actor: Actor,
    after: Option<&str>,
    asked: Option<u64>,
    narrow: impl FnOnce(Find<'_, E>) -> Find<'_, E>,
) -> Result<Response, ApiError> {
    let (after, limit) = (cursor(after)?, limit(asked)?);
    let turn = state.pages.turn(actor.tenant_id).await;
    let work = state.tenancy.read(actor).await?;
    let (mut rows, mut places) = (state.pages.begin(), Vec::new());
    let put = |row: E::Model| {
        let place = E::place(&row);
        let taken = rows.push(&T::from(row))?;
        if taken {
            places.push(place);
        }
        Ok(taken)
    };
    let next = narrow(work.find::<E>().live()).page(after, limit, put).await?;
    drop(turn);
    work.finish(looked::<E>().showing(places.into_iter())).await?;
    rows.answer(next.map(Cursor::encode).as_deref())
}

/// Makes a row in the caller's tenant.
pub(super) async fn create<E: Resource>(work: UnitOfWork, row: E::ActiveModel) -> Result<E::Model, ApiError> {
    match work.insert::<E>(row).await {
        Ok(row) => {
            work.commit(Event::new(Action::Created, E::NAME).on(E::place(&row).1)).await?;
            Ok(row)
        }
        Err(error) => Err(work.refuse(looked::<E>(), error).await),
    }
}

/// Changes `fields` of a live row of the version that the caller expects; none of them changes nothing.
pub(super) async fn change<E: Resource>(
    work: UnitOfWork,
    id: Uuid,
    expected: &Expected,
    changes: E::ActiveModel,
    fields: Vec<&'static str>,
) -> Result<E::Model, ApiError> {
    let (names_word, mut from) = (fields.contains(&E::WORD), None);
    if fields.is_empty() || names_word || !expected.any() {
        let row = match to_change::<E>(&work, id, expected).await? {
            Ok(row) => row,
            Err((found, error)) => return Err(work.refuse(looked::<E>().on(id).with("found", found), error).await),
        };
        if fields.is_empty() {
            work.finish(looked::<E>().on(id).with("found", true)).await?;
            return Ok(row);
        }
        from = names_word.then(|| E::word(&row));
    }
    match work.update::<E>(id, changes).await {
        Ok(Some(row)) => {
            let mut event = Event::new(Action::Updated, E::NAME).on(id).with("fields", fields);
            if let Some(from) = from {
                event = event.with(E::WORD, audit::change(from, E::word(&row)));
            }
            work.commit(event).await?;
            Ok(row)
        }
        Ok(None) => Err(not_found::<E>(work, id).await),
        Err(error) => Err(work.refuse(looked::<E>().on(id), error).await),
    }
}

/// Deletes a live row of the version that the caller expects; it can be restored.
pub(super) async fn delete<E: Resource>(
    work: UnitOfWork,
    id: Uuid,
    expected: &Expected,
) -> Result<StatusCode, ApiError> {
    if !expected.any()
        && let Err((found, error)) = to_change::<E>(&work, id, expected).await?
    {
        return Err(work.refuse(looked::<E>().on(id).with("found", found), error).await);
    }
    if !work.delete::<E>(id).await? {
        return Err(not_found::<E>(work, id).await);
    }
    work.commit(Event::new(Action::Deleted, E::NAME).on(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Brings a deleted row back. One that is not deleted is answered as it is, so that asking twice does no harm.
pub(super) async fn restore<E: Resource>(state: &AppState, actor: Actor, id: Uuid) -> Result<E::Model, ApiError> {
    let work = state.tenancy.write(actor).await?;
    match work.restore::<E>(id).await {
        Ok(Some(row)) => {
            work.commit(Event::new(Action::Restored, E::NAME).on(id)).await?;
            Ok(row)
        }
        Ok(None) => match work.find::<E>().live().one(id).await? {
            Some(row) => {
                work.finish(looked::<E>().on(id).with("found", true)).await?;
                Ok(row)
            }
            None => Err(not_found::<E>(work, id).await),
        },
        Err(error) => Err(work.refuse(looked::<E>().on(id), error).await),
    }
}

/// The live row, held until the work ends; or why it is not to be changed, and whether it was found.
async fn to_change<E: Resource>(
    work: &UnitOfWork,
    id: Uuid,
    expected: &Expected,
) -> Result<Result<E::Model, (bool, ApiError)>, ApiError> {
    let Some(row) = work.find::<E>().live().one_to_change(id).await? else {
        return Ok(Err((false, ErrorCode::NotFound.into())));
    };
    Ok(match expected.check(E::updated_at(&row)) {
        Ok(()) => Ok(row),
        Err(error) => Err((true, error)),
    })
}

/// What is recorded of a caller who has learned something and changed nothing.
pub(super) fn looked<E: Resource>() -> Event {
    Event::new(Action::DataAccess, E::NAME)
}

/// Ends work on a row that is not there: whoever looks for what is not there is recorded, too.
async fn not_found<E: Resource>(work: UnitOfWork, id: Uuid) -> ApiError {
    work.refuse(looked::<E>().on(id).with("found", false), ErrorCode::NotFound.into()).await
}

/// The version that a caller wants to change (RFC 9110, section 13.1.1).
pub(crate) struct Expected(Option<IfMatch>);

impl<S: Send + Sync> FromRequestParts<S> for Expected {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if_match(&parts.headers).map(Self)
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, ApiError> {
    // `IfMatch` takes any text for a list of tags that nothing matches.
    let is_tag = |text: &str| text.trim().parse::<ETag>().is_ok();
    let is_list = |text: &str| text.trim() == "*" || text.split(',').all(is_tag);
    let good = headers.get_all(header::IF_MATCH).iter().all(|value| value.to_str().is_ok_and(is_list));
    headers.typed_try_get::<IfMatch>().ok().filter(|_| good).ok_or_else(|| {
        ApiError::detailed(ErrorCode::BadFormat, "If-Match must be an ETag").of_field("If-Match".to_owned())
    })
}

impl Expected {
    /// Whether any version will do.
    pub(super) fn any(&self) -> bool {
        self.0.is_none()
    }

    /// Refuses where the row, whose last change this is, is of another version.
    pub(super) fn check(&self, updated_at: OffsetDateTime) -> Result<(), ApiError> {
        let Some(expected) = &self.0 else { return Ok(()) };
        let fits = tag(updated_at).parse::<ETag>().is_ok_and(|tag| expected.precondition_passes(&tag));
        if fits { Ok(()) } else { Err(ErrorCode::Stale.into()) }
    }
}

/// What every operation that asks for a token may answer.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) enum Refused {
    /// VAL_001 to VAL_003: a parameter, a header or the body is not good; `field` names it
    #[response(status = 400)]
    Input(ErrorBody),
    /// AUTH_001, AUTH_003, AUTH_004, AUTH_010: there is no good token
    #[response(status = 401)]
    Token(ErrorBody),
    /// AUTH_005, AUTH_007 to AUTH_009: the caller may not do this
    #[response(status = 403)]
    Caller(ErrorBody),
    /// LIM_001: too many requests, in a minute or at once; see Retry-After
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// SYS_003: the log says more, under the request's id
    #[response(status = 500)]
    Internal(ErrorBody),
    /// SYS_001, SYS_004 to SYS_007: something is missing for now
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What an operation that asks for no token may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) enum Busy {
    /// LIM_001: too many requests, in a minute or at once; see Retry-After
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// SYS_003: the log says more, under the request's id
    #[response(status = 500)]
    Internal(ErrorBody),
    /// SYS_001, SYS_004 to SYS_007: something is missing for now
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What an operation with a body may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) enum BodyRefused {
    /// VAL_006: the body did not arrive in time
    #[response(status = 408)]
    Late(ErrorBody),
    /// VAL_004: the body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// VAL_005: the body is not `application/json`
    #[response(status = 415)]
    Media(ErrorBody),
}

/// What an operation on one row may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) enum NoRow {
    /// RES_001: the tenant has nothing of this id
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// What a change of one version may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) enum Lost {
    /// RES_003: it has been changed since the version that If-Match names
    #[response(status = 412)]
    Stale(ErrorBody),
}

/// What a change that could clash with another row may answer besides.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document alone")]
pub(crate) enum Clash {
    /// RES_002: another one has what must be unique; `field` says what that is
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// Text of 1 to `MOST` characters, without control characters and without spaces around it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Text<const MOST: usize>(pub(crate) String);

impl<const MOST: usize> TryFrom<String> for Text<MOST> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let length = text.chars().count();
        if length <= MOST && NonBlank::accepts(&text) {
            return Ok(Self(text));
        }
        Err(format!("must be 1 to {MOST} characters, without control characters and without spaces around them"))
    }
}
