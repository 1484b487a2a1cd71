//! The body of a response while it is written: it has a deadline, and keeps its connection busy.

use super::connections::{Connection, WaitingFor};
use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// The body of a response. It fails after the deadline. hyper then closes the connection, so that the client notices that
/// the body is incomplete.
pub(super) struct ResponseBody {
    body: Body,
    /// Whether its first part has been written.
    begun: bool,
    deadline: Instant,
    /// Set when the body first has to be waited for; most bodies are complete at once.
    timer: Option<Pin<Box<Sleep>>>,
    connection: Connection,
}

impl ResponseBody {
    pub(super) fn new(body: Body, deadline: Instant, connection: Connection) -> Self {
        Self { body, begun: false, deadline, timer: None, connection }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let late = || {
            tracing::warn!("a response is cut off: it took longer than REQUEST_TIMEOUT_SECONDS");
            Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
        };
        match Pin::new(&mut self.body).poll_frame(cx) {
            // The first part may be the error response to a request that took too long.
            Poll::Ready(Some(Ok(_))) if self.begun && Instant::now() >= self.deadline => late(),
            Poll::Ready(frame) => {
                self.begun = true;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let deadline = self.deadline;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => late(),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.connection.set_waiting(WaitingFor::Head);
    }
}
