//! What browsers are told not to do with an answer.

use super::around::Concern;
use crate::config::Environment;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

/// Answers are data: nothing in them is to be loaded, run or framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Swagger UI runs its own scripts, writes styles into its elements and asks this server; nobody else.
const POLICY_OF_DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'";

const FIXED: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    // No other site embeds an answer, or holds on to a window that shows one; CORS is another matter.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// A year of https alone; a developer's localhost has none.
const HTTPS_ONLY: (HeaderName, &str) = (STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains");

/// The headers of every answer, whatever it is.
pub(in crate::server) fn on_every_answer(environment: Environment) -> impl Iterator<Item = (HeaderName, &'static str)> {
    let https = (environment != Environment::Development).then_some(HTTPS_ONLY);
    FIXED.into_iter().chain(https).chain([(CONTENT_SECURITY_POLICY, POLICY)])
}

/// Adds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecurityHeaders(pub(super) Environment);

/// What kind of address was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Api,
    Docs,
    Other,
}

impl Concern for SecurityHeaders {
    type Kept = Kind;

    fn before(&self, request: &mut Request) -> Result<Kind, Response> {
        Ok(match request.uri().path() {
            path if path.starts_with("/api/") => Kind::Api,
            path if path == "/docs" || path.starts_with("/docs/") => Kind::Docs,
            _ => Kind::Other,
        })
    }

    fn after(&self, kind: Kind, response: &mut Response) {
        let status = response.status();
        let headers = response.headers_mut();
        for (name, value) in on_every_answer(self.0) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if kind == Kind::Docs {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY_OF_DOCS));
        }
        if kind == Kind::Api || status.is_client_error() || status.is_server_error() {
            headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        }
    }
}
