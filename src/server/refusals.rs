//! The answers that hyper writes itself, to what it cannot read as a request: given the shape of every other error.
//!
//! hyper answers a malformed head with an empty 400, 414 or 431 that no layer sees, and closes. [`Refusals`] sits
//! between hyper and the socket. It recognises such an answer, which is always the last thing on its connection and
//! the only one without an X-Request-ID, and sends ours in its place. Every other byte passes untouched.

use super::middleware::{X_REQUEST_ID, on_every_answer};
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

/// How long, and how much, a client may go on sending after the last answer. Closing a socket with unread bytes in it
/// resets the connection, and the client may lose the answer (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// The longest head that hyper makes by itself, with room to spare.
const LONGEST_HEAD: usize = 256;

/// A connection on which hyper's own refusals are replaced.
pub(super) struct Refusals<T> {
    inner: T,
    client: IpAddr,
    environment: Environment,
    /// What is still to be written, and how much of it has been; empty until hyper refuses.
    pending: Vec<u8>,
    written: usize,
    refused: bool,
    linger: Linger,
}

enum Linger {
    No,
    Until(Pin<Box<Sleep>>, usize),
    Done,
}

impl<T> Refusals<T> {
    pub(super) fn new(inner: T, client: IpAddr, environment: Environment) -> Self {
        let client = client.to_canonical();
        let (pending, written, refused, linger) = (Vec::new(), 0, false, Linger::No);
        Self { inner, client, environment, pending, written, refused, linger }
    }

    /// Takes over what ends in a refusal: all of it becomes `pending`, with our answer in the refusal's place.
    fn take_over(&mut self, chunks: &[IoSlice<'_>]) -> Option<usize> {
        // Nearly always the end of the check: bodies are JSON, and only a head ends in an empty line.
        let last = chunks.iter().rev().find(|chunk| !chunk.is_empty()).filter(|last| last.ends_with(b"\r\n\r\n"))?;
        let (length, status) = refusal(last)?;
        for chunk in chunks {
            self.pending.extend_from_slice(chunk);
        }
        let taken = self.pending.len();
        self.pending.truncate(taken - length);
        self.refused = true;
        let id = Uuid::now_v7().as_hyphenated().to_string();
        // There is no request to tell more of, and no header to tell a proxy's client by.
        tracing::info!(request_id = %id, status = status.as_u16(), client_ip = %self.client, "not a request");
        self.pending.extend_from_slice(&answer(status, id, self.environment));
        Some(taken)
    }
}

/// The length and status of the refusal at the end of `bytes`.
fn refusal(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    let tail = &bytes[bytes.len().saturating_sub(LONGEST_HEAD)..];
    let start = tail.windows(7).rposition(|window| window == b"HTTP/1.")?;
    let head = std::str::from_utf8(&tail[start..]).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = match lines.next()?.split(' ').nth(1)? {
        "400" => StatusCode::BAD_REQUEST,
        "414" => StatusCode::URI_TOO_LONG,
        "431" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => return None,
    };
    // Any other header, X-Request-ID before all, makes it an answer of ours.
    let hypers = |line: &str| line == "connection: close" || line == "content-length: 0" || line.starts_with("date: ");
    lines.all(hypers).then_some((tail.len() - start, status))
}

fn answer(status: StatusCode, id: String, environment: Environment) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n{X_REQUEST_ID}: {id}\r\n");
    for (name, value) in on_every_answer(environment) {
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

impl<T: AsyncWrite + Unpin> Refusals<T> {
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

impl<T: AsyncRead + Unpin> Refusals<T> {
    /// Reads what a client that was refused, or whose body was not wanted, is still sending.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let read = buffer.filled().len();
                    match &mut self.linger {
                        Linger::Until(_, total) if *total + read > LINGER_BYTES => return Poll::Ready(()),
                        Linger::Until(_, total) => *total += read,
                        _ => self.linger = Linger::Until(Box::pin(tokio::time::sleep(LINGER)), read),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => match &mut self.linger {
                    Linger::Until(end, _) => return end.as_mut().poll(cx),
                    _ if self.refused => self.linger = Linger::Until(Box::pin(tokio::time::sleep(LINGER)), 0),
                    // Nothing unread: closing does no harm.
                    _ => return Poll::Ready(()),
                },
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Refusals<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Refusals<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.refused {
            ready!(self.poll_pending(cx))?;
        } else if let Some(taken) = self.take_over(chunks) {
            // What the socket does not take now goes with the flush.
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

    /// What arrives of `chunks`, written at once through a pipe that takes `room` bytes at a time.
    async fn through(chunks: &[&str], room: usize) -> String {
        let (ours, mut theirs) = tokio::io::duplex(room);
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
        let writing = tokio::spawn(async move {
            let mut stream = Refusals::new(ours, Ipv4Addr::LOCALHOST.into(), Environment::Production);
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
    async fn a_refusal_is_replaced_however_little_the_socket_takes_at_a_time() {
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
    async fn what_a_refused_client_still_sends_is_read_for_a_while_before_the_connection_closes() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut stream = Refusals::new(ours, Ipv4Addr::LOCALHOST.into(), Environment::Production);
        stream.write_all(CANNED.as_bytes()).await.unwrap();
        let closing = tokio::spawn(async move { stream.shutdown().await });
        theirs.write_all(&vec![b'x'; 100_000]).await.unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("VAL_004"), "{text}");
        let begun = tokio::time::Instant::now();
        closing.await.unwrap().unwrap();
        assert!(begun.elapsed() < LINGER * 5, "a client that stays silent is left");
    }

    #[tokio::test]
    async fn what_is_no_refusal_passes_as_it_is() {
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
