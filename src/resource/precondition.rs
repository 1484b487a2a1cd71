//! ETags, and the headers If-Match and If-None-Match (RFC 9110, sections 8.8.3, 13.1.1 and 13.1.2).

use crate::error::{ApiError, ErrorCode};
use crate::tenancy::Table;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, Header, HeaderMapExt};
use serde::Serialize;
use time::OffsetDateTime;

/// The ETag of a row's version: the time of its last change, which no two of its versions share.
fn etag(updated_at: OffsetDateTime) -> String {
    format!("\"{:x}\"", updated_at.unix_timestamp_nanos() / 1000)
}

/// A row as an answer, with its ETag.
pub(crate) fn with_etag<T: Table<Model: Serialize>>(status: StatusCode, row: &T::Model) -> Response {
    with_tag((status, Json(row)).into_response(), &etag(T::updated_at(row)))
}

/// A row's ETag alone.
pub(crate) fn etag_alone<T: Table>(status: StatusCode, row: &T::Model) -> Response {
    with_tag(status.into_response(), &etag(T::updated_at(row)))
}

fn with_tag(mut response: Response, etag: &str) -> Response {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The version that a caller wants to change.
pub(crate) struct IfMatch(Option<headers::IfMatch>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        refuse(parts, &header::IF_NONE_MATCH, IF_NONE_MATCH)?;
        tags(&parts.headers, IF_MATCH).map(Self)
    }
}

/// Names of headers, as errors have them.
const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";

/// A header that is a list of ETags, or `*`.
fn tags<H: Header>(headers: &HeaderMap, name: &'static str) -> Result<Option<H>, ApiError> {
    if !headers.contains_key(H::name()) {
        return Ok(None);
    }
    // `headers` accepts any text as a list of tags that matches nothing.
    let is_tag = |text: &str| text.trim().parse::<ETag>().is_ok();
    let is_list = |text: &str| text.trim() == "*" || text.split(',').all(is_tag);
    let good = headers.get_all(H::name()).iter().all(|value| value.to_str().is_ok_and(is_list));
    headers.typed_try_get::<H>().ok().filter(|_| good).ok_or_else(|| {
        ApiError::detailed(ErrorCode::BadFormat, format!("{name} must be an ETag")).of_field(name.to_owned())
    })
}

/// Refuses a precondition that the operation does not look at: to go on would be to change what the caller wants unchanged.
fn refuse(parts: &Parts, header: &HeaderName, name: &'static str) -> Result<(), ApiError> {
    if !parts.headers.contains_key(header) {
        return Ok(());
    }
    let what = format!("{name} is not for this operation");
    Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field(name.to_owned()))
}

/// For an operation that makes a row, or brings one back: there is no version to compare.
pub(crate) struct NoPrecondition;

impl<S: Send + Sync> FromRequestParts<S> for NoPrecondition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        refuse(parts, &header::IF_MATCH, IF_MATCH)?;
        refuse(parts, &header::IF_NONE_MATCH, IF_NONE_MATCH)?;
        Ok(Self)
    }
}

/// The versions that a caller has already.
pub(crate) struct IfNoneMatch(Option<headers::IfNoneMatch>);

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        tags(&parts.headers, IF_NONE_MATCH).map(Self)
    }
}

impl IfNoneMatch {
    /// The row, or 304 where the caller has it.
    pub(crate) fn answer<T: Table<Model: Serialize>>(&self, row: &T::Model) -> Response {
        let Some(known) = &self.0 else { return with_etag::<T>(StatusCode::OK, row) };
        let tag = etag(T::updated_at(row));
        if tag.parse::<ETag>().is_ok_and(|tag| known.precondition_passes(&tag)) {
            return with_etag::<T>(StatusCode::OK, row);
        }
        with_tag(StatusCode::NOT_MODIFIED.into_response(), &tag)
    }
}

impl IfMatch {
    /// Whether any version will do.
    pub(crate) fn is_unconditional(&self) -> bool {
        self.0.is_none()
    }

    /// Refuses a row whose last change was at another time than that of the expected version.
    pub(crate) fn check(&self, updated_at: OffsetDateTime) -> Result<(), ApiError> {
        let Some(expected) = &self.0 else { return Ok(()) };
        let matches = etag(updated_at).parse::<ETag>().is_ok_and(|etag| expected.precondition_passes(&etag));
        if matches { Ok(()) } else { Err(ErrorCode::Stale.into()) }
    }
}
