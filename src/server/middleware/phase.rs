//! Middleware that depends on the phase of the process.

use super::interceptor::Interceptor;
use super::is_health;
use crate::error::{ApiError, ErrorCode};
use crate::lifecycle::{Lifecycle, Phase};
use axum::extract::Request;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, Either};
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};

/// When a client may try again while the process starts, in seconds.
const RETRY_AFTER_START: [(HeaderName, HeaderValue); 1] = [(RETRY_AFTER, HeaderValue::from_static("1"))];

/// Closes connections while the process stops.
#[derive(Debug, Clone)]
pub(super) struct CloseWhenDraining(pub(super) Lifecycle);

impl Interceptor for CloseWhenDraining {
    type Context = ();

    fn on_request(&self, _request: &mut Request) -> Result<(), Response> {
        Ok(())
    }

    fn on_response(&self, (): (), response: &mut Response) {
        if self.0.phase() == Phase::Draining {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// How long a request waits for a process that starts. A start with nothing to migrate takes a fraction of a second, and a
/// balancer that has not noticed the restart sends requests meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// This endpoint describes the build and uses no tables.
const VERSION: &str = "/api/v1/version";

/// Has requests that need tables wait until the process has been ready once, and refuses them if that takes too long.
#[derive(Debug, Clone)]
pub(super) struct WaitUntilReady(pub(super) Lifecycle);

impl<S> Layer<S> for WaitUntilReady {
    type Service = Waiting<S>;

    fn layer(&self, inner: S) -> Waiting<S> {
        Waiting { inner, lifecycle: self.0.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Waiting<S> {
    inner: S,
    lifecycle: Lifecycle,
}

impl<S> Service<Request> for Waiting<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let path = request.uri().path();
        let needs_tables = path.starts_with("/api/") && !is_health(path) && path != VERSION;
        if !needs_tables || self.lifecycle.has_served() {
            return Either::Left(self.inner.call(request));
        }
        let lifecycle = self.lifecycle.clone();
        // The one that is ready; the clone need not be (docs.rs/tower, `Service`, "Be careful when cloning inner services").
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Either::Right(Box::pin(async move {
            if tokio::time::timeout(PATIENCE, lifecycle.ready()).await == Ok(true) {
                return inner.call(request).await;
            }
            Ok((RETRY_AFTER_START, ApiError::from(ErrorCode::SchemaNotReady)).into_response())
        }))
    }
}
