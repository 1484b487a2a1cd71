//! Rewrites hyper's own error responses into the error body of this API.
//!
//! hyper answers a malformed head with an empty 400, 414 or 431 that no middleware sees, and closes the connection.
//! [`HyperErrorRewriter`] is between hyper and the socket. It recognizes such a response, which is always the last one on
//! its connection and the only one without an X-Request-ID, and replaces it. All other bytes pass unchanged.

use super::middleware::{X_REQUEST_ID, security_headers};
use crate::config::Environment;
use crate::error_response::{ErrorBody, code_of_status};
use axum::http::StatusCode;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use uuid::Uuid;

/// How long, and how many bytes, a client may go on sending after the last response. Closing a socket with unread bytes
/// resets the connection, and the client may lose the response (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An upper bound of the head of such a response.
const HEAD_BYTES_MAX: usize = 256;

/// A connection on which hyper's own error responses are replaced.
pub(super) struct HyperErrorRewriter<T> {
    inner: T,
    client: IpAddr,
    environment: Environment,
    /// The bytes to write in place of hyper's, and how many of them are written; empty until hyper sends an error.
    pending: Vec<u8>,
    written: usize,
    rewritten: bool,
    linger: Linger,
}

enum Linger {
    No,
    Until(Pin<Box<Sleep>>, usize),
    Done,
}

impl<T> HyperErrorRewriter<T> {
    pub(super) fn new(inner: T, client: IpAddr, environment: Environment) -> Self {
        let client = client.to_canonical();
        let (pending, written, rewritten, linger) = (Vec::new(), 0, false, Linger::No);
        Self { inner, client, environment, pending, written, rewritten, linger }
    }

    /// If the bytes end with an error response of hyper, makes them `pending`, with the replacement at their end. Returns
    /// how many bytes it has taken.
    fn rewrite(&mut self, chunks: &[IoSlice<'_>]) -> Option<usize> {
        // For nearly all writes the check ends here: bodies are JSON, and only a head ends with an empty line.
        let last = chunks.iter().rev().find(|chunk| !chunk.is_empty()).filter(|last| last.ends_with(b"\r\n\r\n"))?;
        let (length, status) = hyper_error(last)?;
        for chunk in chunks {
            self.pending.extend_from_slice(chunk);
        }
        let taken = self.pending.len();
        self.pending.truncate(taken - length);
        self.rewritten = true;
        let id = Uuid::now_v7().as_hyphenated().to_string();
        // There is no parsed request: its route is unknown, and so is a proxy's client.
        tracing::info!(request_id = %id, status = status.as_u16(), client_ip = %self.client, "not a request");
        self.pending.extend_from_slice(&error_response(status, id, self.environment));
        Some(taken)
    }
}

/// The length and status of the error response at the end of `bytes`.
fn hyper_error(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    let tail = &bytes[bytes.len().saturating_sub(HEAD_BYTES_MAX)..];
    let start = tail.windows(7).rposition(|window| window == b"HTTP/1.")?;
    let head = std::str::from_utf8(&tail[start..]).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = match lines.next()?.split(' ').nth(1)? {
        "400" => StatusCode::BAD_REQUEST,
        "414" => StatusCode::URI_TOO_LONG,
        "431" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => return None,
    };
    // A response of this API has other headers too, such as X-Request-ID.
    let is_hyper_header =
        |line: &str| line == "connection: close" || line == "content-length: 0" || line.starts_with("date: ");
    lines.all(is_hyper_header).then_some((tail.len() - start, status))
}

fn error_response(status: StatusCode, id: String, environment: Environment) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n{X_REQUEST_ID}: {id}\r\n");
    for (name, value) in security_headers(environment) {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let body = serde_json::to_string(&ErrorBody::new(code_of_status(status), None, None, id)).unwrap_or_default();
    let _ = write!(
        head,
        "cache-control: no-store\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    head.into_bytes()
}

impl<T: AsyncWrite + Unpin> HyperErrorRewriter<T> {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => self.written += more,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> HyperErrorRewriter<T> {
    /// Reads the rest that the client sends after an error, or of a body that no handler has read.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let read = buffer.filled().len();
                    match &mut self.linger {
                        Linger::Until(_, total) if *total + read > LINGER_BYTES_MAX => return Poll::Ready(()),
                        Linger::Until(_, total) => *total += read,
                        _ => self.linger = Linger::Until(Box::pin(tokio::time::sleep(LINGER)), read),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => match &mut self.linger {
                    Linger::Until(end, _) => return end.as_mut().poll(cx),
                    _ if self.rewritten => self.linger = Linger::Until(Box::pin(tokio::time::sleep(LINGER)), 0),
                    // Nothing is unread: the connection may close.
                    _ => return Poll::Ready(()),
                },
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HyperErrorRewriter<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HyperErrorRewriter<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.rewritten {
            ready!(self.poll_pending(cx))?;
        } else if let Some(taken) = self.rewrite(chunks) {
            // The flush writes the rest.
            return match self.poll_pending(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(taken)),
            };
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, chunks)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        if matches!(self.linger, Linger::No) {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        if !matches!(self.linger, Linger::Done) {
            ready!(self.poll_linger(cx));
            self.linger = Linger::Done;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const CANNED: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
         date: Sun, 22 Nov 2026 23:45:33 GMT\r\n\r\n";

    /// The text that arrives if `chunks` are written at once through a pipe that holds `room` bytes.
    async fn through(chunks: &[&str], room: usize) -> String {
        let (ours, mut theirs) = tokio::io::duplex(room);
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
        let writing = tokio::spawn(async move {
            let mut stream = HyperErrorRewriter::new(ours, Ipv4Addr::LOCALHOST.into(), Environment::Production);
            let mut all: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            while !all.is_empty() {
                let slices: Vec<IoSlice<'_>> = all.iter().map(|chunk| IoSlice::new(chunk)).collect();
                let mut written = stream.write_vectored(&slices).await.unwrap();
                while let Some(first) = all.first_mut().filter(|first| first.len() <= written) {
                    written -= first.len();
                    all.remove(0);
                }
                if let Some(first) = all.first_mut() {
                    *first = &first[written..];
                }
            }
            stream.flush().await.unwrap();
        });
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        writing.await.unwrap();
        text
    }

    #[tokio::test]
    async fn hyper_errors_are_rewritten_even_in_partial_writes() {
        let before = "HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n";
        for room in [1, 7, 64, 65_536] {
            for chunks in
                [vec![CANNED.to_owned()], vec![format!("{before}{CANNED}")], vec![before.to_owned(), CANNED.to_owned()]]
            {
                let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
                let text = through(&chunks, room).await;
                let ours = text.strip_prefix(before).unwrap_or(&text);
                assert_eq!(text.len() > ours.len(), chunks.concat().len() > CANNED.len(), "{text}");
                assert!(ours.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nx-request-id: "), "{ours}");
                let (head, body) = ours.split_once("\r\n\r\n").unwrap();
                assert!(head.ends_with(&format!("content-length: {}\r\nconnection: close", body.len())), "{ours}");
                assert!(body.contains("\"code\":\"VAL_004\""), "{ours}");
            }
        }
    }

    #[tokio::test]
    async fn after_an_error_the_connection_lingers_before_it_closes() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut stream = HyperErrorRewriter::new(ours, Ipv4Addr::LOCALHOST.into(), Environment::Production);
        stream.write_all(CANNED.as_bytes()).await.unwrap();
        let closing = tokio::spawn(async move { stream.shutdown().await });
        theirs.write_all(&vec![b'x'; 100_000]).await.unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("VAL_004"), "{text}");
        let begun = tokio::time::Instant::now();
        closing.await.unwrap().unwrap();
        assert!(begun.elapsed() < LINGER * 5, "the connection of a silent client closes");
    }

    #[tokio::test]
    async fn other_responses_pass_unchanged() {
        let ours = CANNED.replace("content-length", "x-request-id: 1\r\ncontent-length");
        for text in [
            ours.as_str(),
            "HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n",
            "{}",
            "\r\n\r\n",
            "body HTTP/1.1 400\r\nx: y\r\n\r\n",
        ] {
            for room in [3, 65_536] {
                assert_eq!(through(&[text], room).await, text);
            }
        }
    }
}
