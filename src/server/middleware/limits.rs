//! Limits the requests that are handled at once, in total and for each client.

use super::client::Client;
use super::interceptor::Interceptor;
use super::is_health;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use crate::metrics::{Limit, Metrics};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The response to a request beyond a limit.
fn busy(code: ErrorCode, limit: Limit, metrics: &Metrics) -> Response {
    metrics.refused(limit);
    ([(RETRY_AFTER, "1")], ApiError::from(code)).into_response()
}

/// The limits of concurrent requests, in total and for each client. Shared by all routes.
#[derive(Debug, Clone)]
pub(super) struct ConcurrencyLimit {
    permits: Arc<Semaphore>,
    clients: ClientCounts,
    metrics: Metrics,
}

impl ConcurrencyLimit {
    pub(super) fn new(settings: &Settings, metrics: Metrics) -> Self {
        let max = usize::try_from(settings.max_concurrent_requests).unwrap_or(usize::MAX);
        Self {
            permits: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            clients: ClientCounts { max: settings.max_concurrent_requests_per_client, counts: Arc::default() },
            metrics,
        }
    }
}

/// Refuses a request beyond the limit at once: a queue would only delay all responses.
impl Interceptor for ConcurrencyLimit {
    type Context = Option<(Option<ClientShare>, Slot)>;

    fn on_request(&self, request: &mut Request) -> Result<Self::Context, Response> {
        if is_health(request.uri().path()) {
            return Ok(None);
        }
        let share = match request.extensions().get::<Client>() {
            Some(client) => {
                let share = self.clients.share(*client);
                Some(share.ok_or_else(|| busy(ErrorCode::RateLimited, Limit::Client, &self.metrics))?)
            }
            None => None,
        };
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| busy(ErrorCode::Overloaded, Limit::Requests, &self.metrics))?;
        let slot = Slot(Arc::new(SlotPermit { permits: Arc::clone(&self.permits), permit: Mutex::new(Some(permit)) }));
        if !request.body().is_end_stream() {
            // For the layer that waits for the body.
            request.extensions_mut().insert(slot.clone());
        }
        Ok(Some((share, slot)))
    }

    fn on_response(&self, context: Self::Context, response: &mut Response) {
        // A body that is produced while it is written still counts; a complete one does not.
        if context.is_some() && response.body().size_hint().exact().is_none() {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Body::new(body.map_frame(move |frame| {
                // The closure, and so the context, lives as long as the body.
                let _ = &context;
                frame
            }));
        }
    }
}

/// A request's slot in the total limit. The request releases it while its body arrives, so that a client that sends slowly
/// does not keep others out.
#[derive(Debug, Clone)]
pub(super) struct Slot(Arc<SlotPermit>);

#[derive(Debug)]
struct SlotPermit {
    permits: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Slot {
    pub(super) fn release(&self) {
        self.permit().take();
    }

    /// Takes a slot again; false if there is none.
    pub(super) fn reacquire(&self) -> bool {
        let mut permit = self.permit();
        if permit.is_none() {
            *permit = Arc::clone(&self.0.permits).try_acquire_owned().ok();
        }
        permit.is_some()
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts and limits the concurrent requests of each client, so that one client with slow requests does not take all slots.
#[derive(Debug, Clone)]
struct ClientCounts {
    max: u32,
    counts: Arc<Mutex<HashMap<Client, u32>>>,
}

impl ClientCounts {
    /// Counts one more request of this client; `None` if it has reached its limit.
    fn share(&self, client: Client) -> Option<ClientShare> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(ClientShare { client, counts: Arc::clone(&self.counts) })
    }
}

/// One counted request of one client.
#[derive(Debug)]
pub(super) struct ClientShare {
    client: Client,
    counts: Arc<Mutex<HashMap<Client, u32>>>,
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}
