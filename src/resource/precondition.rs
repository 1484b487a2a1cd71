//! ETags, and the If-Match header (RFC 9110, sections 8.8.3 and 13.1.1).

use crate::error::{ApiError, ErrorCode};
use crate::tenancy::Table;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, HeaderMapExt};
use serde::Serialize;
use time::OffsetDateTime;

/// The ETag of a row's version: the time of its last change, which no two of its versions share.
fn etag(updated_at: OffsetDateTime) -> String {
    format!("\"{:x}\"", updated_at.unix_timestamp_nanos() / 1000)
}

/// A row as an answer, with its ETag.
pub(crate) fn with_etag<T: Table<Model: Serialize>>(status: StatusCode, row: &T::Model) -> Response {
    let mut response = (status, Json(row)).into_response();
    if let Ok(etag) = HeaderValue::from_str(&etag(T::updated_at(row))) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The version that a caller wants to change.
pub(crate) struct IfMatch(Option<headers::IfMatch>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if_match(&parts.headers).map(Self)
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<headers::IfMatch>, ApiError> {
    // `headers` accepts any text as a list of tags that matches nothing.
    let is_tag = |text: &str| text.trim().parse::<ETag>().is_ok();
    let is_list = |text: &str| text.trim() == "*" || text.split(',').all(is_tag);
    let good = headers.get_all(header::IF_MATCH).iter().all(|value| value.to_str().is_ok_and(is_list));
    headers.typed_try_get::<headers::IfMatch>().ok().filter(|_| good).ok_or_else(|| {
        ApiError::detailed(ErrorCode::BadFormat, "If-Match must be an ETag").of_field("If-Match".to_owned())
    })
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
