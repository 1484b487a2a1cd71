//! How long a request's body may be, and how long it may take.

use super::around::Concern;
use super::limits::Place;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use crate::input::BodyError;
use crate::server::connections::{Connection, Wait};
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

/// The longest body in bytes, and the longest time until it is in.
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

/// Refuses an announced length at once; a body without one is cut off where it exceeds the limit, and whoever reads
/// it answers 413. A body that is late fails, and whoever reads it answers 408.
impl Concern for BodyLimits {
    type Kept = ();

    fn before(&self, request: &mut Request) -> Result<(), Response> {
        if request.body().size_hint().lower() > u64::from(self.bytes) {
            return Err(ApiError::from(ErrorCode::TooLarge).into_response());
        }
        if !request.body().is_end_stream() {
            let most = usize::try_from(self.bytes).unwrap_or(usize::MAX);
            let body = Arriving {
                body: Limited::new(std::mem::take(request.body_mut()), most),
                time: self.time,
                end: None,
                place: request.extensions().get().cloned(),
                connection: request.extensions().get().cloned(),
            };
            *request.body_mut() = Body::new(body);
        }
        Ok(())
    }
}

/// A body on its way. Whoever waits for it is not at work.
struct Arriving {
    body: Limited<Body>,
    time: Duration,
    /// When it is late; none while nobody has waited for it.
    end: Option<Pin<Box<Sleep>>>,
    place: Option<Place>,
    connection: Option<Connection>,
}

impl Arriving {
    fn leave(&self) {
        if let Some(place) = &self.place {
            place.leave();
        }
        if let Some(connection) = &self.connection {
            connection.waits(Wait::Body);
        }
    }

    fn go_on(&self) -> Result<(), BodyError> {
        if let Some(connection) = &self.connection {
            connection.works();
        }
        if self.place.as_ref().is_none_or(Place::take_again) { Ok(()) } else { Err(BodyError::NoRoom) }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                let time = self.time;
                if self.end.is_none() {
                    self.leave();
                }
                let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
                match end.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Late.into()))),
                    Poll::Pending => Poll::Pending,
                }
            }
            Poll::Ready(None) if self.end.is_some() => match self.go_on() {
                Ok(()) => Poll::Ready(None),
                Err(error) => Poll::Ready(Some(Err(error.into()))),
            },
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        // Whoever has waited goes back to work at the end.
        self.end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
