//! How much at once: in all, for one client, and while a body is on its way.

use super::around::Concern;
use super::client::Network;
use super::is_health;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use crate::telemetry::ClientIp;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The answer to what there is no room for now.
fn busy(code: ErrorCode) -> Response {
    ([(RETRY_AFTER, "1")], ApiError::from(code)).into_response()
}

/// The requests at work: how many there may be, in all and of one client. Shared by all routes.
#[derive(Debug, Clone)]
pub(super) struct AtWork {
    places: Arc<Semaphore>,
    clients: Clients,
}

impl AtWork {
    pub(super) fn new(settings: &Settings) -> Self {
        let most = usize::try_from(settings.max_concurrent_requests).unwrap_or(usize::MAX);
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            clients: Clients { most: settings.max_concurrent_requests_per_client, counts: Arc::default() },
        }
    }
}

/// Refuses at once what there is no room for: a queue would only make every answer late.
impl Concern for AtWork {
    type Kept = Option<(Option<Share>, Place)>;

    fn before(&self, request: &mut Request) -> Result<Self::Kept, Response> {
        if is_health(request.uri().path()) {
            return Ok(None);
        }
        let share = match request.extensions().get::<ClientIp>() {
            Some(client) => Some(self.clients.share(client.0).ok_or_else(|| busy(ErrorCode::RateLimited))?),
            None => None,
        };
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy(ErrorCode::Overloaded))?;
        let place = Place(Arc::new(Held { places: Arc::clone(&self.places), permit: Mutex::new(Some(permit)) }));
        if !request.body().is_end_stream() {
            // For whoever waits for the body.
            request.extensions_mut().insert(place.clone());
        }
        Ok(Some((share, place)))
    }

    fn after(&self, kept: Self::Kept, response: &mut Response) {
        // An answer that is made while it is written is still work; one that is there as a whole is not.
        if kept.is_some() && response.body().size_hint().exact().is_none() {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Body::new(Kept { body, _kept: kept });
        }
    }
}

/// A request's place among those at work. It has none while its body is on its way: a client that sends slowly keeps nobody
/// out.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    places: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Place {
    pub(super) fn leave(&self) {
        self.permit().take();
    }

    /// Whether there is room again.
    pub(super) fn take_again(&self) -> bool {
        let mut permit = self.permit();
        if permit.is_none() {
            *permit = Arc::clone(&self.0.places).try_acquire_owned().ok();
        }
        permit.is_some()
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests each client has at work, and how many it may have: however slow its requests are, others have room.
#[derive(Debug, Clone)]
struct Clients {
    most: u32,
    counts: Arc<Mutex<HashMap<Network, u32>>>,
}

impl Clients {
    /// One more of this client; `None` where it has its share.
    fn share(&self, ip: IpAddr) -> Option<Share> {
        let network = Network::of(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { network, counts: Arc::clone(&self.counts) })
    }
}

/// One request of one client.
#[derive(Debug)]
pub(super) struct Share {
    network: Network,
    counts: Arc<Mutex<HashMap<Network, u32>>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

struct Kept<K> {
    body: Body,
    _kept: K,
}

impl<K: Unpin> HttpBody for Kept<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
