//! The query of a list: which page of it, and what narrows it.

use crate::error::{ApiError, ErrorCode};
use crate::input::parse_query;
use crate::tenancy::Cursor;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;
use utoipa::IntoParams;

/// How many rows a page has where the caller does not say.
const PAGE_SIZE_DEFAULT: u64 = 50;

/// The longest page, in rows.
const PAGE_SIZE_MAX: u64 = 200;

/// The query parameters of every list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// How many rows a page has: 1 to 200; 50 where it is omitted.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u64>,
    /// Where the page begins: the `next_cursor` of the previous page.
    pub(crate) cursor: Option<String>,
}

impl PageQuery {
    /// How many rows the page has at most.
    pub(crate) fn size(&self) -> Result<u64, ApiError> {
        let size = self.limit.unwrap_or(PAGE_SIZE_DEFAULT);
        if (1..=PAGE_SIZE_MAX).contains(&size) {
            return Ok(size);
        }
        let detail = format!("limit must be 1 to {PAGE_SIZE_MAX}");
        Err(ApiError::detailed(ErrorCode::InvalidInput, detail).of_field("limit".to_owned()))
    }

    /// Where the page begins.
    pub(super) fn after(&self) -> Result<Option<Cursor>, ApiError> {
        self.cursor.as_deref().map(|text| Cursor::decode(text).ok_or_else(cursor_error)).transpose()
    }
}

/// Refuses a cursor that is none.
pub(crate) fn cursor_error() -> ApiError {
    ApiError::detailed(ErrorCode::BadFormat, "cursor must be the next_cursor of a page").of_field("cursor".to_owned())
}

/// The query of a list whose filter is `F`.
pub(crate) struct ListQuery<F>(pub(crate) PageQuery, pub(crate) F);

impl<S: Send + Sync, F: DeserializeOwned> FromRequestParts<S> for ListQuery<F> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        // serde cannot flatten a struct into another that refuses unknown fields, so the two are parsed apart.
        let part = |of_page: bool| {
            let pairs = form_urlencoded::parse(query.as_bytes());
            let pairs = pairs.filter(|(name, _)| matches!(&**name, "limit" | "cursor") == of_page);
            form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
        };
        Ok(Self(parse_query(&part(true))?, parse_query(&part(false))?))
    }
}

/// The query of what is no list.
pub(crate) struct Parameters<Q>(pub(crate) Q);

impl<S: Send + Sync, Q: DeserializeOwned> FromRequestParts<S> for Parameters<Q> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}
