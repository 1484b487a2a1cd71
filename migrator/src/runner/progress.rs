//! Tells what a run is doing: to the caller's observer, and to the log.

use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often the log says that a migration still runs.
pub(super) const PROGRESS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another process holds the lock.
    WaitingForLock,
    /// A migration is running.
    Migrating,
}

/// Logs every ten seconds that a migration still runs, and what it waits for, until the returned value is dropped.
pub(super) fn report<F>(name: &'static str, waits_for: impl Fn() -> F + Send + 'static) -> AbortOnDrop
where
    F: Future<Output = String> + Send,
{
    AbortOnDrop(tokio::spawn(async move {
        let started = Instant::now();
        loop {
            tokio::time::sleep(PROGRESS_LOG_INTERVAL).await;
            let waits_for = waits_for().await;
            tracing::info!(migration = name, seconds = started.elapsed().as_secs(), waits_for, "still running");
        }
    }))
}

/// Aborts the task when it is dropped.
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
