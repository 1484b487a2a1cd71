//! Limits the length of request bodies and the time until they have arrived.

use super::interceptor::Interceptor;
use super::limits::Slot;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use crate::input::BodyError;
use crate::server::connections::{Connection, WaitingFor};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use hyper::body::{Bytes, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// The longest body in bytes, and the longest time until it has arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    bytes: u32,
    time: Duration,
}

impl BodyLimits {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { bytes: settings.max_body_bytes, time: settings.body_timeout }
    }
}

/// Refuses a body whose announced length is too long. Reading a body without a length fails at the limit, which becomes a
/// 413. Reading a body that is late fails too, which becomes a 408.
impl Interceptor for BodyLimits {
    type Context = ();

    fn on_request(&self, request: &mut Request) -> Result<(), Response> {
        if request.body().size_hint().lower() > u64::from(self.bytes) {
            return Err(ApiError::from(ErrorCode::TooLarge).into_response());
        }
        if !request.body().is_end_stream() {
            let max = usize::try_from(self.bytes).unwrap_or(usize::MAX);
            let body = IncomingBody {
                body: Limited::new(std::mem::take(request.body_mut()), max),
                time: self.time,
                end: None,
                slot: request.extensions().get().cloned(),
                connection: request.extensions().get().cloned(),
            };
            *request.body_mut() = Body::new(body);
        }
        Ok(())
    }
}

/// A body that is arriving. While the handler waits for it, the request has no slot and its connection may be closed.
struct IncomingBody {
    body: Limited<Body>,
    time: Duration,
    /// The deadline; None until the handler first had to wait for it.
    end: Option<Pin<Box<Sleep>>>,
    slot: Option<Slot>,
    connection: Option<Connection>,
}

impl IncomingBody {
    fn begin_wait(&self) {
        if let Some(slot) = &self.slot {
            slot.release();
        }
        if let Some(connection) = &self.connection {
            connection.set_waiting(WaitingFor::Body);
        }
    }

    fn end_wait(&self) -> Result<(), BodyError> {
        if let Some(connection) = &self.connection {
            connection.set_busy();
        }
        if self.slot.as_ref().is_none_or(Slot::reacquire) { Ok(()) } else { Err(BodyError::NoRoom) }
    }
}

impl HttpBody for IncomingBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                let time = self.time;
                if self.end.is_none() {
                    self.begin_wait();
                }
                let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
                match end.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Late.into()))),
                    Poll::Pending => Poll::Pending,
                }
            }
            Poll::Ready(None) if self.end.is_some() => match self.end_wait() {
                Ok(()) => Poll::Ready(None),
                Err(error) => Poll::Ready(Some(Err(error.into()))),
            },
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        // After a wait, the end has to be polled: it takes a slot again.
        self.end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
