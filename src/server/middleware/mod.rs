//! The middleware that every request passes, outermost first. [`wrap`] is the list; docs/middleware.md describes it for
//! operators.

mod access_log;
mod body;
mod client;
mod cors;
mod envelope;
mod headers;
mod host;
mod interceptor;
mod limits;
mod options;
mod panics;
mod phase;
mod rate_limit;
mod request_id;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub(crate) use client::fuzz;
pub(super) use headers::security_headers;
pub(super) use request_id::X_REQUEST_ID;

use crate::app::AppState;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use interceptor::InterceptorLayer;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use {
    body::BodyLimits, client::SetClient, client::SetClientIp, envelope::Envelope, headers::SecurityHeaders,
    host::OneHost, limits::ConcurrencyLimit, options::PlainOptions, phase::CloseWhenDraining, phase::WaitUntilReady,
    rate_limit::RateLimit, request_id::SetRequestId,
};

/// The layers, outermost first.
pub(super) fn wrap(router: Router<AppState>, state: &AppState) -> Router<AppState> {
    let settings = &state.settings;
    router.layer(
        ServiceBuilder::new()
            // The client's address: the peer's, or the one that a trusted proxy forwards. The log and the limits read it.
            .layer(InterceptorLayer(SetClientIp(settings.clone())))
            // An id for every request, for its log lines, its error body and its X-Request-ID header.
            .layer(InterceptorLayer(SetRequestId))
            // One log line for each response, with the status that the client sees; and its span, where requests are traced.
            .layer(from_fn_with_state(state.database.metrics().clone(), access_log::access_log))
            // While the process stops, connections are closed, so that clients connect to another instance.
            .layer(InterceptorLayer(CloseWhenDraining(state.lifecycle.clone())))
            // Security headers on every response, and the error body for every 4xx and 5xx from the layers below.
            .layer(InterceptorLayer((SecurityHeaders(settings.environment), Envelope(settings.environment))))
            // No request without a Host header, or with two. OPTIONS that are no preflight become answers with Allow.
            .layer(InterceptorLayer((OneHost, PlainOptions)))
            // A panic in one of the layers below becomes a 500. It lacks CORS headers, so scripts may not be able to read it.
            .layer(CatchPanicLayer::custom(panics::respond))
            // Answers preflights. Outside all layers that refuse requests, so that scripts can read their errors.
            .layer(cors::layer(&settings.allowed_origins))
            // Whom a request counts against: its caller, where the token was verified before, or its address.
            .layer(InterceptorLayer(SetClient::new(state.auth.clone())))
            // Limits concurrent requests, in total and for each client, and the time of each.
            .layer(InterceptorLayer(ConcurrencyLimit::new(settings, state.database.metrics().clone())))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, settings.request_timeout))
            // No request uses tables before their schema fits this build. Below the limits, since requests wait here.
            .layer(WaitUntilReady(state.lifecycle.clone()))
            // Limits the length of bodies and their time to arrive. axum's own limit is off.
            .layer(InterceptorLayer(BodyLimits::new(settings)))
            .layer(DefaultBodyLimit::disable())
            // Limits the rate of requests for each client.
            .layer(option_layer(RateLimit::new(settings, state.database.metrics().clone()).map(InterceptorLayer)))
            .map_response(IntoResponse::into_response)
            // A panic in a handler becomes a 500, which scripts can read; the connection stays open.
            .layer(CatchPanicLayer::custom(panics::respond)),
    )
}

/// Whether this is a health endpoint. Limits do not apply to them: the platform calls them often, from one address, and
/// also under load.
fn is_health(path: &str) -> bool {
    path.starts_with("/api/v1/health/")
}
