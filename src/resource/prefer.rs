//! The Prefer header: whether the answer to a change has the row (RFC 7240, section 4.2).

use super::precondition::{etag_alone, with_etag};
use crate::tenancy::Table;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use std::convert::Infallible;

/// The request header.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The response header that says which preference was followed.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a caller wants in the answer to a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// It has not said.
    Nothing,
    /// Nothing but headers.
    Minimal,
    /// The row.
    Representation,
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl Prefer {
    /// Of several `return` the first counts; other preferences and values, and what is malformed, are as if they were not there
    /// (RFC 7240, section 2).
    fn of(headers: &HeaderMap) -> Self {
        for line in headers.get_all(PREFER) {
            for preference in line.to_str().map(preferences).unwrap_or_default() {
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                let value = value.split(';').next().unwrap_or_default().trim().trim_matches('"');
                if name.trim().eq_ignore_ascii_case("return") {
                    return match value {
                        "minimal" => Self::Minimal,
                        "representation" => Self::Representation,
                        _ => Self::Nothing,
                    };
                }
            }
        }
        Self::Nothing
    }

    /// The answer to a change of a row; with nothing in it, the status is `status_alone`.
    pub(crate) fn answer<T: Table<Model: Serialize>>(
        self,
        status: StatusCode,
        status_alone: StatusCode,
        row: &T::Model,
    ) -> Response {
        let (mut response, applied) = match self {
            Self::Nothing => return with_etag::<T>(status, row),
            Self::Minimal => (etag_alone::<T>(status_alone, row), "return=minimal"),
            Self::Representation => (with_etag::<T>(status, row), "return=representation"),
        };
        response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(applied));
        response
    }
}

/// The parts of a list between its commas, but for those within quotes.
fn preferences(line: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_return_counts() {
        for (lines, expected) in [
            (&[][..], Prefer::Nothing),
            (&["return=minimal"], Prefer::Minimal),
            (&["Return = \"minimal\" ; x=1"], Prefer::Minimal),
            (&["respond-async, return=representation"], Prefer::Representation),
            (&["respond-async", "return=minimal"], Prefer::Minimal),
            (&["return=minimal, return=representation"], Prefer::Minimal),
            (&["x=\"a\\\", return=minimal\""], Prefer::Nothing),
            (&["x=\"a\", return=minimal"], Prefer::Minimal),
            (&["return=everything"], Prefer::Nothing),
            (&["return"], Prefer::Nothing),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, line.parse().unwrap());
            }
            assert_eq!(Prefer::of(&headers), expected, "{lines:?}");
        }
    }
}
