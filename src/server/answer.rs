//! An answer's body on its way: within the time of its request, and with the connection at work until it is written.

use super::connections::{Connection, Wait};
use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// The body of an answer. It fails after the deadline, and hyper then closes the connection: the client sees that the answer
/// is not whole.
pub(super) struct Answer {
    body: Body,
    /// Whether a part of it has been written.
    begun: bool,
    deadline: Instant,
    /// Made where the body is first waited for; most bodies are there as a whole.
    timer: Option<Pin<Box<Sleep>>>,
    connection: Connection,
}

impl Answer {
    pub(super) fn new(body: Body, deadline: Instant, connection: Connection) -> Self {
        Self { body, begun: false, deadline, timer: None, connection }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let late = || {
            tracing::warn!("an answer is cut off: it took longer than REQUEST_TIMEOUT_SECONDS");
            Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
        };
        match Pin::new(&mut self.body).poll_frame(cx) {
            // The first one may be the refusal of a request that took too long.
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

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.waits(Wait::Head);
    }
}
