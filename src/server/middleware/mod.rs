//! What every request passes through, outermost first. [`wrap`] is the list; docs/middleware.md tells it to operators.

mod access_log;
mod around;
mod body;
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

pub(super) use headers::on_every_answer;
pub(super) use request_id::X_REQUEST_ID;

use crate::app::AppState;
use around::Around;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use {
    body::BodyLimits, client::FindClient, envelope::Envelope, headers::SecurityHeaders, limits::AtWork,
    phase::CloseWhenDraining, phase::RequireSchema, rate_limit::RateLimit, request_id::GiveId,
};

/// The layers, outermost first.
pub(super) fn wrap(router: Router<AppState>, state: &AppState) -> Router<AppState> {
    let settings = &state.settings;
    router.layer(
        ServiceBuilder::new()
            // Who asks: the peer, or whom a trusted proxy names. Decided once; the log and the rate limit read it.
            .layer(Around(FindClient(settings.clone())))
            // An id for every request: in its log lines, its error body and its X-Request-ID header.
            .layer(Around(GiveId))
            // One line per answered request; sees the status that the client sees.
            .layer(from_fn(access_log::access_log))
            // While draining, clients are asked to connect anew, to another instance.
            .layer(Around(CloseWhenDraining(state.lifecycle.clone())))
            // What browsers are told not to do with an answer.
            .layer(Around(SecurityHeaders(settings.environment)))
            // Every 4xx and 5xx from below in the one error shape.
            .layer(Around(Envelope(settings.environment)))
            // A panic in one of the layers below is a 500 like any other, though scripts may not be able to read it.
            .layer(CatchPanicLayer::custom(panics::answer))
            // Answers preflights; outside everything that refuses, so that scripts can read the refusals.
            .layer(cors::layer(&settings.allowed_origins))
            // No answer from tables that may not be what this build expects.
            .layer(Around(RequireSchema(state.lifecycle.clone())))
            // No more requests at work than the instance bears, no more of one client than its share, none for ever.
            .layer(Around(AtWork::new(settings)))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, settings.request_timeout))
            // No body longer than allowed, announced or not, and none for ever; axum's own limit steps back.
            .layer(Around(BodyLimits::new(settings)))
            .layer(DefaultBodyLimit::disable())
            // No client asks more often than its share.
            .layer(option_layer(RateLimit::new(settings).map(Around)))
            .map_response(IntoResponse::into_response)
            // A panic in a handler is a 500 for that request, not the end of its connection; scripts can read it.
            .layer(CatchPanicLayer::custom(panics::answer)),
    )
}

/// Health endpoints are for the platform: it asks often, from one address, and most of all under load.
fn is_health(path: &str) -> bool {
    path.starts_with("/api/v1/health/")
}
