//! What every request passes through, outermost first. [`wrap`] is the list; docs/middleware.md tells it to operators.

mod access_log;
mod client;
mod cors;
mod envelope;
mod headers;
mod limits;
mod panics;
mod phase;
mod rate_limit;
mod request_id;
#[cfg(test)]
mod tests;

pub use client::ClientIp;
pub(crate) use envelope::OwnBody;
pub(super) use headers::on_every_answer;
pub(super) use request_id::X_REQUEST_ID;

use super::AppState;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

/// The layers, outermost first.
pub(super) fn wrap(router: Router<AppState>, state: &AppState) -> Router<AppState> {
    let settings = &state.settings;
    router.layer(
        ServiceBuilder::new()
            // Who asks: the peer, or whom a trusted proxy names. Decided once; the log and the rate limit read it.
            .layer(from_fn_with_state(settings.clone(), client::client))
            // An id for every request: in its log lines, its error body and its X-Request-ID header.
            .layer(from_fn(request_id::request_id))
            // One line per answered request; sees the status that the client sees.
            .layer(from_fn(access_log::access_log))
            // While draining, clients are asked to connect anew, to another instance.
            .layer(from_fn_with_state(state.clone(), phase::close_when_draining))
            // Every 4xx and 5xx from below in the one error shape.
            .layer(from_fn_with_state(settings.environment, envelope::envelope))
            // What browsers are told not to do with an answer.
            .layer(from_fn_with_state(settings.environment, headers::security_headers))
            // Answers preflights; outside everything that refuses, so that scripts can read the refusals.
            .layer(cors::layer(&settings.allowed_origins))
            // No answer from tables that may not be what this build expects.
            .layer(from_fn_with_state(state.clone(), phase::require_schema))
            // No more requests at work than the instance bears, and none of them for ever.
            .layer(from_fn_with_state(limits::Concurrency::new(settings), limits::concurrency))
            .layer(from_fn_with_state(limits::TimeLimit(settings.request_timeout), limits::time))
            // No body longer than allowed, announced or not; axum's own limit steps back.
            .layer(from_fn_with_state(limits::BodyLimit(settings.max_body_bytes), limits::body))
            .layer(DefaultBodyLimit::disable())
            // No client takes more than its share.
            .layer(option_layer(
                rate_limit::RateLimit::new(settings).map(|limit| from_fn_with_state(limit, rate_limit::rate_limit)),
            ))
            .map_response(IntoResponse::into_response)
            // A panic in a handler is a 500 for that request, not the end of its connection.
            .layer(CatchPanicLayer::custom(panics::answer)),
    )
}

/// Health endpoints are for the platform: it asks often, from one address, and most of all under load.
fn is_health(path: &str) -> bool {
    path.starts_with("/api/v1/health/")
}
