//! The answers of lists: each row becomes text as it is read, and this text is all that is kept of it.

use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A page of at most so many bytes is not counted among the large ones: one of the largest rows, and more of the usual ones.
const SMALL: usize = 128 * 1024;

/// How many large pages there may be at once: while there are, others end where they would become large, and a row that is
/// large by itself has to wait.
const LARGE_PAGES: usize = 16;

/// About how many bytes of an answer are freed at once when they are written.
const PIECE: usize = 32 * 1024;

/// How large pages may be. One for the process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    most: usize,
    large: Arc<Semaphore>,
}

impl Pages {
    pub(crate) fn new(settings: &Settings) -> Self {
        let most = usize::try_from(settings.max_page_bytes).unwrap_or(usize::MAX);
        Self { most, large: Arc::new(Semaphore::new(LARGE_PAGES)) }
    }

    /// A page without rows.
    pub(crate) fn begin(&self) -> Rows {
        let open = br#"{"items":["#.to_vec();
        Rows { pages: self.clone(), large: None, bytes: 0, pieces: VecDeque::new(), open }
    }
}

/// The rows of a page, as JSON.
#[derive(Debug)]
pub(crate) struct Rows {
    pages: Pages,
    /// Held from when the page becomes large until it is written.
    large: Option<OwnedSemaphorePermit>,
    bytes: usize,
    pieces: VecDeque<Bytes>,
    open: Vec<u8>,
}

impl Rows {
    /// Adds a row, unless there is no room for it: then `false`. The first one may have any size, and is refused only while
    /// there are too many large pages.
    pub(crate) fn push(&mut self, row: &impl Serialize) -> Result<bool, ApiError> {
        let (before, first) = (self.open.len(), self.bytes == 0);
        if !first {
            self.open.push(b',');
        }
        serde_json::to_writer(&mut self.open, row).map_err(|error| ApiError::internal(&error))?;
        let bytes = self.bytes + self.open.len() - before;
        let room = self.room(bytes);
        if first && bytes > SMALL && self.large.is_none() {
            return Err(ErrorCode::Overloaded.into());
        }
        if !first && bytes > room {
            self.open.truncate(before);
            return Ok(false);
        }
        self.bytes = bytes;
        if self.open.len() >= PIECE {
            self.close();
        }
        Ok(true)
    }

    /// How many bytes a page that is to have so many may have.
    fn room(&mut self, bytes: usize) -> usize {
        if bytes > SMALL && self.large.is_none() {
            self.large = Arc::clone(&self.pages.large).try_acquire_owned().ok();
        }
        if self.large.is_some() { self.pages.most } else { self.pages.most.min(SMALL) }
    }

    fn close(&mut self) {
        // Without the capacity that it does not use.
        self.pieces.push_back(mem::take(&mut self.open).into_boxed_slice().into());
    }

    /// The answer, with where the next page begins.
    pub(crate) fn answer(mut self, next_cursor: Option<&str>) -> Result<Response, ApiError> {
        self.open.extend_from_slice(br#"],"next_cursor":"#);
        serde_json::to_writer(&mut self.open, &next_cursor).map_err(|error| ApiError::internal(&error))?;
        self.open.push(b'}');
        let body = if self.pieces.is_empty() {
            Body::new(Full::from(self.open))
        } else {
            self.close();
            Body::new(Pieces { pieces: self.pieces, _large: self.large })
        };
        Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
    }
}

/// A body whose pieces are freed as they are written.
struct Pieces {
    pieces: VecDeque<Bytes>,
    _large: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pages(most: &str) -> Pages {
        let settings = Settings::read(&|name| (name == "MAX_PAGE_BYTES").then(|| most.into())).0.unwrap();
        Pages::new(&settings)
    }

    /// A row of so many bytes.
    fn row(bytes: usize) -> String {
        "x".repeat(bytes - 2)
    }

    /// Adds rows of 1000 bytes until there is no more room: how many.
    fn fill(rows: &mut Rows) -> usize {
        (0..10_000).take_while(|_| rows.push(&row(1000)).unwrap()).count()
    }

    #[tokio::test]
    async fn an_answer_is_its_rows_and_where_the_next_page_begins() {
        let pages = pages("1000000");
        for (count, next) in [(0, None), (1, Some("a\"b")), (2, None), (500, Some("x"))] {
            let mut rows = pages.begin();
            for _ in 0..count {
                assert!(rows.push(&row(1000)).unwrap());
            }
            let answer = rows.answer(next).unwrap();
            let said = answer.body().size_hint().exact().unwrap();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body.len() as u64, said, "{count}");
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, serde_json::json!({"items": vec![row(1000); count], "next_cursor": next}));
        }
    }

    #[test]
    fn a_page_has_its_bytes_at_most_and_one_row_at_least() {
        let mut rows = pages("5000").begin();
        assert_eq!(fill(&mut rows), 4, "with commas between them");
        assert!(rows.push(&row(900)).unwrap(), "a shorter one still fits");
        let mut rows = pages("5000").begin();
        assert!(rows.push(&row(9000)).unwrap());
        assert!(!rows.push(&row(2)).unwrap());
    }

    #[test]
    fn while_many_large_pages_are_written_others_stay_small() {
        let pages = pages("1000000");
        let mut large: Vec<Rows> = (0..LARGE_PAGES).map(|_| pages.begin()).collect();
        for rows in &mut large {
            assert_eq!(fill(rows), 999);
        }
        assert_eq!(fill(&mut pages.begin()), 130);
        assert!(pages.begin().push(&row(130_000)).unwrap());
        assert_eq!(pages.begin().push(&row(200_000)).unwrap_err().code, ErrorCode::Overloaded);
        // One of them is on its way; then it is written.
        let answer = large.pop().unwrap().answer(None).unwrap();
        assert_eq!(fill(&mut pages.begin()), 130);
        drop(answer);
        assert!(pages.begin().push(&row(2_000_000)).unwrap());
        assert_eq!(fill(&mut pages.begin()), 999);
    }
}
