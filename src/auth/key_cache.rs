//! The provider's keys: one task fetches them, every request reads them without a lock.

use super::discovery::{Metadata, ProviderError};
use super::key_set::KeySet;
use super::key_source::{FetchedKeys, KeySource};
use crate::config::KEY_AGE_SECONDS_MAX;
use arc_swap::ArcSwapOption;
use backon::{ExponentialBuilder, Retryable};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Attempts of one refresh, and the first pause between them, which doubles.
const REFRESH_ATTEMPTS: usize = 3;
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long keys are used if the provider does not respond.
const KEY_AGE_MAX: Duration = Duration::from_secs(KEY_AGE_SECONDS_MAX as u64);

/// The pause after a failed refresh: while there are no keys, and while there are some.
const RETRY_PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(2);
const RETRY_PAUSE_WITH_KEYS: Duration = Duration::from_secs(30);

/// The most requests that wait for a fetch because no key fits their tokens. More than these go on with the keys at hand:
/// requests with forged tokens must not use up all places while the provider is slow.
const REFRESH_WAITERS_MAX: usize = 128;

/// As many for logins.
const LOGIN_WAITERS_MAX: usize = 64;

/// The least time between two fetches because of a login. A login waits for the next one: a second change of the keys within
/// half a minute does not make it fail.
const LOGIN_REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// How long a request waits for a fetch of keys.
const KEY_WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether signing keys are available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// The last refresh succeeded.
    Fresh,
    /// The last refresh failed; the keys of an earlier one are still in use.
    Stale,
    /// There are no keys to verify a token with.
    Unavailable,
    /// No issuer is configured: no token is accepted.
    Disabled,
}

/// The result of the last successful fetch.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The issuer, exactly as tokens must spell it.
    pub(super) issuer: String,
    /// The provider's metadata; the development issuer has none.
    pub(super) metadata: Option<Metadata>,
    /// Counts the changes of issuer or keys. A token that was verified with an older generation is verified again.
    pub(super) generation: u64,
    pub(super) keys: KeySet,
    fetched_at: Instant,
}

/// Who asks for keys that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A request with a token, which anyone could have made up.
    Request,
    /// A login, whose tokens come from the provider itself. If no key fits them, the keys have changed.
    Login,
}

impl Asker {
    /// How many looks are worth waiting for. A look in progress may have begun before the keys changed.
    pub(super) fn looks(self) -> usize {
        match self {
            Self::Request => 1,
            Self::Login => 2,
        }
    }
}

/// The keys, shared by the task that fetches them and the requests that read them.
pub(super) struct KeyCache {
    /// None if no issuer is configured.
    source: Option<Box<dyn KeySource>>,
    ttl: Duration,
    current: ArcSwapOption<Snapshot>,
    /// Whether the last refresh failed.
    failing: AtomicBool,
    on_demand: watch::Sender<OnDemandRefresh>,
    refresh_waiters: Semaphore,
    login_waiters: Semaphore,
    /// Whether the first refresh has ended, successfully or not.
    first_attempt_done: watch::Sender<bool>,
}

/// A fetch of the keys because none fits a token.
#[derive(Debug, Default)]
struct OnDemandRefresh {
    /// When the last one began.
    last_began: Option<Instant>,
    /// Whether one is requested or in progress.
    wanted: bool,
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("current", &self.current).finish_non_exhaustive()
    }
}

impl KeyCache {
    pub(super) fn new(source: Option<Box<dyn KeySource>>, ttl: Duration) -> Self {
        Self {
            source,
            ttl,
            current: ArcSwapOption::empty(),
            failing: AtomicBool::new(false),
            on_demand: watch::Sender::default(),
            refresh_waiters: Semaphore::new(REFRESH_WAITERS_MAX),
            login_waiters: Semaphore::new(LOGIN_WAITERS_MAX),
            first_attempt_done: watch::Sender::new(false),
        }
    }

    /// The last fetched keys, unless they are too old.
    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full().filter(|snapshot| snapshot.fetched_at.elapsed() < KEY_AGE_MAX)
    }

    /// The last fetched keys. Waits for the first fetch of the process if that has not ended.
    pub(super) async fn wait_for_first_fetch(&self) -> Option<Arc<Snapshot>> {
        if let Some(snapshot) = self.current() {
            return Some(snapshot);
        }
        if self.source.is_some() {
            let mut done = self.first_attempt_done.subscribe();
            // After a timeout the keys at hand decide.
            let _ = tokio::time::timeout(KEY_WAIT_TIMEOUT, done.wait_for(|done| *done)).await;
        }
        self.current()
    }

    /// The keys after a fetch because no key fits a token. This fetch is shared and rate-limited: requests that come during a
    /// fetch wait for it; later ones use the keys at hand, and logins wait for the next fetch.
    pub(super) async fn look(&self, asker: Asker) -> Option<Arc<Snapshot>> {
        let interval = self.source.as_ref()?.min_refresh_interval();
        let mut refresh = self.on_demand.subscribe();
        let (interval, waiters) = match asker {
            Asker::Request => (interval, &self.refresh_waiters),
            Asker::Login => (interval.min(LOGIN_REFRESH_INTERVAL), &self.login_waiters),
        };
        let permit = waiters.try_acquire();
        if asker == Asker::Login && permit.is_ok() {
            self.wait_for_pause(interval).await;
        }
        if self.request_refresh(interval) && permit.is_ok() {
            let _ = tokio::time::timeout(KEY_WAIT_TIMEOUT, refresh.wait_for(|refresh| !refresh.wanted)).await;
        }
        self.current()
    }

    /// Waits until a fetch may be requested, unless one is in progress.
    async fn wait_for_pause(&self, interval: Duration) {
        let allowed_at = {
            let refresh = self.on_demand.borrow();
            refresh.last_began.filter(|_| !refresh.wanted).map(|began| began + interval)
        };
        if let Some(at) = allowed_at {
            tokio::time::sleep_until(at).await;
        }
    }

    /// Requests a fetch if the last one is so long ago. Returns whether there is one to wait for.
    fn request_refresh(&self, interval: Duration) -> bool {
        let mut wanted = false;
        self.on_demand.send_if_modified(|refresh| {
            let requested = !refresh.wanted && refresh.last_began.is_none_or(|began| began.elapsed() >= interval);
            refresh.wanted |= requested;
            wanted = refresh.wanted;
            requested
        });
        wanted
    }

    /// How long ago the keys were fetched; `None` without keys.
    pub(super) fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|snapshot| snapshot.fetched_at.elapsed())
    }

    pub(super) fn status(&self) -> KeyStatus {
        match (&self.source, self.current()) {
            (None, _) => KeyStatus::Disabled,
            (_, None) => KeyStatus::Unavailable,
            (_, Some(_)) if self.failing.load(Ordering::Relaxed) => KeyStatus::Stale,
            _ => KeyStatus::Fresh,
        }
    }

    /// Fetches at once, again before the keys reach their age, and when a request asks for it; never returns.
    pub(super) async fn run(&self) {
        let Some(source) = self.source.as_deref() else { return std::future::pending().await };
        let mut on_demand = self.on_demand.subscribe();
        loop {
            let pause = match self.refresh(source).await {
                Ok(()) => self.ttl.mul_f64(0.8),
                Err(()) if self.current().is_none() => RETRY_PAUSE_WITHOUT_KEYS,
                Err(()) => RETRY_PAUSE_WITH_KEYS.min(self.ttl),
            };
            let due = tokio::time::sleep(pause);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    () = async { drop(on_demand.wait_for(|refresh| refresh.wanted).await) } => {
                        // Keep the schedule unless this fetch failed.
                        if self.refresh_on_demand(source).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Fetches metadata and keys, with retries. Only this changes whether refreshes count as failing.
    async fn refresh(&self, source: &dyn KeySource) -> Result<(), ()> {
        let retry = ExponentialBuilder::default()
            .with_min_delay(FIRST_RETRY_PAUSE)
            .with_factor(2.0)
            .with_max_times(REFRESH_ATTEMPTS - 1);
        let outcome = self.store((|| source.fetch(None)).retry(retry).await);
        self.failing.store(outcome.is_err(), Ordering::Relaxed);
        self.first_attempt_done.send_replace(true);
        outcome
    }

    /// Fetches the keys without retries, because none fits a token.
    async fn refresh_on_demand(&self, source: &dyn KeySource) -> Result<(), ()> {
        // The interval counts from this fetch, not from the request for it, which may have waited for a refresh.
        self.on_demand.send_modify(|refresh| refresh.last_began = Some(Instant::now()));
        let known = self.current.load().as_ref().and_then(|snapshot| snapshot.metadata.clone());
        let outcome = self.store(source.fetch(known).await);
        self.on_demand.send_modify(|refresh| refresh.wanted = false);
        outcome
    }

    /// Replaces the current keys by the fetched ones.
    fn store(&self, fetched: Result<FetchedKeys, ProviderError>) -> Result<(), ()> {
        let before = self.current.load_full();
        match fetched {
            Ok(FetchedKeys { issuer, metadata, keys }) => {
                let unchanged = |old: &Arc<Snapshot>| old.issuer == issuer && old.keys.has_same_keys(&keys);
                let generation = match &before {
                    Some(old) if unchanged(old) => old.generation,
                    old => {
                        if metadata.is_some() {
                            tracing::info!(%issuer, keys = keys.len(), "fetched new keys of the identity provider");
                        }
                        old.as_ref().map_or(0, |old| old.generation + 1)
                    }
                };
                let snapshot = Snapshot { issuer, metadata, generation, keys, fetched_at: Instant::now() };
                self.current.store(Some(Arc::new(snapshot)));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, keys_left = self.current().is_some(), "cannot fetch the identity provider's keys");
                Err(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
