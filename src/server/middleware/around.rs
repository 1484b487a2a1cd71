//! A layer that looks at a request, then at its answer, and waits for nothing itself.
//!
//! axum's `from_fn` clones everything below it for each request, which a dozen of them multiply; this one does not.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// What one layer does.
pub(super) trait Concern: Clone + Send + Sync + 'static {
    /// What it keeps of a request for the answer.
    type Kept: Send;

    /// Looks at the request; an `Err` is the answer.
    // It is moved once, for a refusal.
    #[allow(clippy::result_large_err)]
    fn before(&self, request: &mut Request) -> Result<Self::Kept, Response>;

    /// Looks at the answer, unless it is its own.
    fn after(&self, _kept: Self::Kept, _response: &mut Response) {}
}

/// Makes a layer of a concern.
#[derive(Debug, Clone)]
pub(super) struct Around<C>(pub(super) C);

impl<S, C: Clone> Layer<S> for Around<C> {
    type Service = AroundService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService { inner, concern: self.0.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct AroundService<S, C> {
    inner: S,
    concern: C,
}

impl<S, C> Service<Request> for AroundService<S, C>
where
    S: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send + 'static>,
    C: Concern,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let kept = match self.concern.before(&mut request) {
            Ok(kept) => kept,
            Err(response) => return Box::pin(std::future::ready(Ok(response))),
        };
        let (answer, concern) = (self.inner.call(request), self.concern.clone());
        Box::pin(async move {
            let mut response = answer.await?.into_response();
            concern.after(kept, &mut response);
            Ok(response)
        })
    }
}
