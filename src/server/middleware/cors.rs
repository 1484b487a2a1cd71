//! CORS: which sites' scripts may read responses.

use super::X_REQUEST_ID;
use super::rate_limit::{RATELIMIT, RATELIMIT_POLICY};
use crate::config::Origin;
use crate::resource::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, PREFER, PREFERENCE_APPLIED};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Method};
use std::time::Duration;
use tower_http::cors::CorsLayer;

/// How long a browser may cache a preflight response. Some browsers cache it for two hours at most.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(24);

pub(super) fn layer(origins: &[Origin]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.as_str().parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH, PREFER])
        // The headers that scripts may read besides the safelisted ones (Fetch standard, "CORS-safelisted response-header name").
        .expose_headers([
            X_REQUEST_ID,
            ETAG,
            LOCATION,
            RETRY_AFTER,
            WWW_AUTHENTICATE,
            ALLOW,
            RATELIMIT,
            RATELIMIT_POLICY,
            PREFERENCE_APPLIED,
            IDEMPOTENCY_REPLAYED,
        ])
        .max_age(PREFLIGHT_MAX_AGE)
}
