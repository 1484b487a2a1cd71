//! What every request passes through, outermost first. [`wrap`] is the list.

use super::{AppState, Phase};
use crate::config::Environment;
use crate::error::{ApiError, ErrorBody, ErrorCode};
use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use std::any::Any;
use std::net::SocketAddr;
use std::time::Instant;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// When to ask again while the process starts, in seconds.
const RETRY_AFTER_START: [(HeaderName, HeaderValue); 1] = [(RETRY_AFTER, HeaderValue::from_static("1"))];

/// The layers, outermost first.
pub(super) fn wrap(router: Router<AppState>, state: &AppState) -> Router<AppState> {
    router.layer(
        ServiceBuilder::new()
            // A fresh id for every request, in its log line, its error body and its X-Request-ID header.
            .layer(from_fn(request_id))
            // One line per answered request; sees the status that the client sees.
            .layer(from_fn(access_log))
            // While draining, clients are asked to connect anew, to another instance.
            .layer(from_fn_with_state(state.clone(), close_when_draining))
            // Every 4xx and 5xx from below in the one error shape.
            .layer(from_fn_with_state(state.clone(), envelope))
            // No answer from tables that may not be what this build expects.
            .layer(from_fn_with_state(state.clone(), require_schema))
            // A panic in a handler is a 500 for that request, not the end of its connection.
            .layer(CatchPanicLayer::custom(panicked)),
    )
}

/// The id of the request at hand, a UUID v7 (RFC 9562).
#[derive(Debug, Clone, Copy)]
struct RequestId(Uuid);

/// Marks an answer of 4xx or 5xx whose body is its own and documented, such as readiness.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnBody;

async fn request_id(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7();
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    let text = id.as_hyphenated().to_string();
    if let Ok(value) = HeaderValue::from_maybe_shared(text.into_bytes()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

async fn access_log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let id = id_of(&request);
    // The template, never the raw path: ids and whatever else a client puts there stay out of the log.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
    let response = next.run(request).await;
    tracing::info!(
        request_id = %id,
        %method,
        route = route.as_ref().map_or("unmatched", MatchedPath::as_str),
        status = response.status().as_u16(),
        duration_ms = started.elapsed().as_secs_f64() * 1000.0,
        client_ip = client.map(tracing::field::display),
        "request"
    );
    response
}

async fn close_when_draining(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if state.lifecycle.phase() == Phase::Draining {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn require_schema(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let needs_it = path.starts_with("/api/") && !path.starts_with("/api/v1/health/");
    if needs_it && !state.lifecycle.has_served() {
        return (RETRY_AFTER_START, ApiError::from(ErrorCode::SchemaNotReady)).into_response();
    }
    next.run(request).await
}

async fn envelope(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let id = id_of(&request);
    let mut response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.extensions().get::<OwnBody>().is_some() {
        return response;
    }
    let error = response.extensions_mut().remove::<ApiError>();
    let error = error.unwrap_or_else(|| ErrorCode::of_status(status).into());
    let detail = error.detail.filter(|_| state.settings.environment == Environment::Development);
    // Headers such as Allow and Retry-After belong to the answer; the old body's own do not.
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().remove(CONTENT_LENGTH);
    let (mut parts, _) = response.into_parts();
    let (body_parts, body): (_, Body) = Json(ErrorBody::new(error.code, detail, id)).into_response().into_parts();
    parts.headers.extend(body_parts.headers);
    Response::from_parts(parts, body)
}

fn id_of(request: &Request) -> String {
    request.extensions().get::<RequestId>().map(|id| id.0.as_hyphenated().to_string()).unwrap_or_default()
}

// The signature is the layer's: it hands over the panic's payload.
#[allow(clippy::needless_pass_by_value)]
fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("of another type"), "a handler panicked");
    ApiError::from(ErrorCode::Internal).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Settings;
    use crate::server::Lifecycle;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use tower::ServiceExt;

    async fn panics() {
        panic!("patient 123-45-6789");
    }

    /// The layers around one handler that always panics.
    async fn answer(environment: &'static str) -> (Response, serde_json::Value) {
        let lookup = move |name: &str| match name {
            "ENVIRONMENT" => Some(environment.into()),
            "DATABASE_URL" => Some("sqlite://never-opened.db".into()),
            _ => None,
        };
        let settings = Arc::new(Settings::read(&lookup).0.unwrap());
        let runner = Arc::new(crate::server::runner(&settings, bulkhead_migration::migrations()));
        let database = crate::database::pool(&settings);
        let auth = crate::auth::Auth::new(&settings.identity).unwrap();
        let state = AppState::new(Arc::clone(&settings), database, auth, Lifecycle::new(), runner);
        let router = wrap(Router::new().route("/", axum::routing::get(panics)), &state).with_state(state);
        let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        (Response::from_parts(parts, Body::empty()), body)
    }

    #[tokio::test]
    async fn a_panic_is_a_500_of_the_usual_shape_that_says_nothing_of_its_cause() {
        for environment in ["development", "production"] {
            let (response, body) = answer(environment).await;
            assert_eq!(response.status(), 500);
            assert_eq!(body["error"]["code"], "SYS_003");
            assert_eq!(body["error"]["request_id"], response.headers()[X_REQUEST_ID].to_str().unwrap());
            assert!(!body.to_string().contains("patient"), "{body}");
        }
    }
}
