//! Security response headers.

use super::interceptor::Interceptor;
use crate::config::Environment;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

/// The policy for data: browsers load, run and frame nothing of it.
const API_CSP: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The policy for Swagger UI: it runs its own scripts, sets styles of its elements, and calls this server only.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'";

const FIXED: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    // No other site may embed a response, or control a window that shows one. This is independent of CORS.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Browsers use only https for a year. Not for development, where localhost has no https.
const HTTPS_ONLY: (HeaderName, &str) = (STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains");

/// The security headers of every response.
pub(in crate::server) fn security_headers(
    environment: Environment,
) -> impl Iterator<Item = (HeaderName, &'static str)> {
    let https = (environment != Environment::Development).then_some(HTTPS_ONLY);
    FIXED.into_iter().chain(https).chain([(CONTENT_SECURITY_POLICY, API_CSP)])
}

/// Adds the security headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecurityHeaders(pub(super) Environment);

/// The part of the server that a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    Api,
    Docs,
    Other,
}

impl Interceptor for SecurityHeaders {
    type Context = RouteKind;

    fn on_request(&self, request: &mut Request) -> Result<RouteKind, Response> {
        Ok(match request.uri().path() {
            path if path.starts_with("/api/") => RouteKind::Api,
            path if path == "/docs" || path.starts_with("/docs/") => RouteKind::Docs,
            _ => RouteKind::Other,
        })
    }

    fn on_response(&self, kind: RouteKind, response: &mut Response) {
        let status = response.status();
        let headers = response.headers_mut();
        for (name, value) in security_headers(self.0) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if kind == RouteKind::Docs {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_CSP));
        }
        if kind == RouteKind::Api || status.is_client_error() || status.is_server_error() {
            headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        }
    }
}
