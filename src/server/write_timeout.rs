//! Closes connections of clients that do not read their responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A socket whose writes fail if the client reads nothing for `pause`, or has not read everything within `whole`.
pub(super) struct WriteTimeout<T> {
    inner: T,
    pause: Duration,
    whole: Duration,
    /// Set while the client does not read fast enough.
    stall: Option<Stall>,
}

struct Stall {
    began: Instant,
    end: Pin<Box<Sleep>>,
}

impl<T> WriteTimeout<T> {
    pub(super) fn new(inner: T, pause: Duration, whole: Duration) -> Self {
        Self { inner, pause, whole, stall: None }
    }

    /// Adds the timeout to the outcome of a write.
    fn with_timeout(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        match written {
            Poll::Pending => {
                let Self { pause, whole, stall, .. } = self;
                let stall = stall.get_or_insert_with(|| {
                    let end = Box::pin(tokio::time::sleep_until(now + *pause.min(whole)));
                    Stall { began: now, end }
                });
                ready!(stall.end.as_mut().poll(cx));
                tracing::debug!("a client does not read its response");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(bytes)) if bytes > 0 => {
                if let Some(stall) = &mut self.stall {
                    stall.end.as_mut().reset((now + self.pause).min(stall.began + self.whole));
                }
                written
            }
            Poll::Ready(_) => written,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeout<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.with_timeout(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, chunks);
        self.with_timeout(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes after it has written everything (src/proto/h1/io.rs, `poll_flush`).
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.stall = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PAUSE: Duration = Duration::from_secs(10);
    const WHOLE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_times_out_after_the_pause() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut stream = WriteTimeout::new(ours, PAUSE, WHOLE);
        let begun = Instant::now();
        let error = stream.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_times_out_after_the_whole_time() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut stream = WriteTimeout::new(ours, PAUSE, WHOLE);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE / 2).await;
                theirs.read_u8().await.unwrap_or_default();
            }
        });
        let begun = Instant::now();
        let error = stream.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, WHOLE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_everything_never_times_out() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut stream = WriteTimeout::new(ours, PAUSE, WHOLE);
        for _ in 0..5 {
            let reading = async {
                tokio::time::sleep(PAUSE * 9 / 10).await;
                let mut all = [0; 100];
                theirs.read_exact(&mut all).await.unwrap();
            };
            let writing = async {
                stream.write_all(&[0; 100]).await.unwrap();
                stream.flush().await.unwrap();
            };
            tokio::join!(reading, writing);
        }
    }
}
