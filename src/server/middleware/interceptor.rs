//! Synchronous middleware: code that runs on each request before the inner service, and on its response after it.
//!
//! axum's `from_fn` clones the inner service for each request, and a dozen of such layers multiply this cost. This layer
//! does not clone.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// The code of one layer.
pub(super) trait Interceptor: Clone + Send + Sync + 'static {
    /// A value that it passes from a request to its response.
    type Context: Send;

    /// Runs before the inner service. An `Err` is the response; the inner service is then not called.
    // It is moved once, for an error response.
    #[allow(clippy::result_large_err)]
    fn on_request(&self, request: &mut Request) -> Result<Self::Context, Response>;

    /// Runs on the response of the inner service.
    fn on_response(&self, _context: Self::Context, _response: &mut Response) {}
}

/// Two interceptors in one layer, the outer one first: a layer of its own costs each request an allocation.
impl<A: Interceptor, B: Interceptor> Interceptor for (A, B) {
    type Context = (A::Context, B::Context);

    fn on_request(&self, request: &mut Request) -> Result<Self::Context, Response> {
        let outer = self.0.on_request(request)?;
        match self.1.on_request(request) {
            Ok(inner) => Ok((outer, inner)),
            Err(mut response) => {
                self.0.on_response(outer, &mut response);
                Err(response)
            }
        }
    }

    fn on_response(&self, (outer, inner): Self::Context, response: &mut Response) {
        self.1.on_response(inner, response);
        self.0.on_response(outer, response);
    }
}

/// The layer of an interceptor.
#[derive(Debug, Clone)]
pub(super) struct InterceptorLayer<I>(pub(super) I);

impl<S, I: Clone> Layer<S> for InterceptorLayer<I> {
    type Service = InterceptorService<S, I>;

    fn layer(&self, inner: S) -> Self::Service {
        InterceptorService { inner, interceptor: self.0.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct InterceptorService<S, I> {
    inner: S,
    interceptor: I,
}

impl<S, I> Service<Request> for InterceptorService<S, I>
where
    S: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send + 'static>,
    I: Interceptor,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let context = match self.interceptor.on_request(&mut request) {
            Ok(context) => context,
            Err(response) => return Box::pin(std::future::ready(Ok(response))),
        };
        let (response, interceptor) = (self.inner.call(request), self.interceptor.clone());
        Box::pin(async move {
            let mut response = response.await?.into_response();
            interceptor.on_response(context, &mut response);
            Ok(response)
        })
    }
}
