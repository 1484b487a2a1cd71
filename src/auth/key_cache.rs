//! The provider's keys: fetched by one task, read by every request without a lock.

use super::Standing;
use super::development::DevelopmentIssuer;
use super::discovery::{Metadata, ProviderError};
use super::http::HttpClient;
use super::key_set::{Document, Key, KeySet};
use crate::config::{KEY_AGE_SECONDS_MAX, Provider};
use arc_swap::ArcSwapOption;
use backon::{ExponentialBuilder, Retryable};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Tries of one refresh, and the first pause between them, which doubles.
const TRIES: usize = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long keys serve while the provider is away.
const STALE_LIMIT: Duration = Duration::from_secs(KEY_AGE_SECONDS_MAX as u64);

/// How long to wait after a refresh that failed: while there are no keys at all, and while there are.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(2);
const PAUSE_WITH_KEYS: Duration = Duration::from_secs(30);

/// The least time between two fetches for the sake of unknown key ids, for the whole process.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);

/// The same for the development issuer's file, whose key may be made at any moment.
const UNKNOWN_KEY_PAUSE_IN_DEVELOPMENT: Duration = Duration::from_secs(1);

/// The most requests that wait for a fetch for the sake of an unknown key id: forged ones must not use up the places of
/// good ones while the provider is slow.
const MAX_WAITING: usize = 128;

/// How long a request waits for keys that are being fetched.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where keys come from.
pub(super) enum Source {
    Provider {
        settings: Box<Provider>,
        http: HttpClient,
    },
    Development(DevelopmentIssuer),
    Nobody,
    #[cfg(test)]
    Scripted(tests::Script),
}

/// What a fetch brings: the issuer, the provider's metadata, the keys.
type Fetched = (String, Option<Metadata>, KeySet);

/// What was last fetched.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The issuer, exactly as tokens must spell it.
    pub(super) issuer: String,
    /// The provider's metadata; the development issuer has none.
    pub(super) metadata: Option<Metadata>,
    /// Counts the changes of issuer or keys: what was checked with other keys must be checked again.
    pub(super) generation: u64,
    keys: KeySet,
    fetched: Instant,
}

impl Snapshot {
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.keys.find(id)
    }
}

/// The keys, shared by the task that fetches them and the requests that read them.
pub(super) struct KeyCache {
    source: Source,
    ttl: Duration,
    current: ArcSwapOption<Snapshot>,
    /// Whether the last refresh failed.
    failing: AtomicBool,
    look: watch::Sender<Look>,
    waiting: Semaphore,
    /// Whether a refresh has ended, well or not.
    tried: watch::Sender<bool>,
}

/// The fetch for the sake of an unknown key id.
#[derive(Debug, Default)]
struct Look {
    /// When the last one began.
    last: Option<Instant>,
    /// Whether one is asked for, or under way.
    wanted: bool,
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("current", &self.current).finish_non_exhaustive()
    }
}

impl KeyCache {
    pub(super) fn new(source: Source, ttl: Duration) -> Self {
        Self {
            source,
            ttl,
            current: ArcSwapOption::empty(),
            failing: AtomicBool::new(false),
            look: watch::Sender::default(),
            waiting: Semaphore::new(MAX_WAITING),
            tried: watch::Sender::new(false),
        }
    }

    /// What was last fetched, unless it is too old to trust.
    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full().filter(|snapshot| snapshot.fetched.elapsed() < STALE_LIMIT)
    }

    /// The same; waits for the process's first refresh where that is not over.
    pub(super) async fn first(&self) -> Option<Arc<Snapshot>> {
        if let Some(snapshot) = self.current() {
            return Some(snapshot);
        }
        if !matches!(self.source, Source::Nobody) {
            let mut tried = self.tried.subscribe();
            // In vain at the latest when the request's own time is over.
            let _ = tokio::time::timeout(PATIENCE, tried.wait_for(|tried| *tried)).await;
        }
        self.current()
    }

    /// What is there after a fetch for the sake of an unknown key id. There is one such fetch in a while for all
    /// requests together: those that come during it wait for it, later ones do without.
    pub(super) async fn refreshed(&self) -> Option<Arc<Snapshot>> {
        let mut look = self.look.subscribe();
        if let (true, Ok(_place)) = (self.ask_for_look(), self.waiting.try_acquire()) {
            let _ = tokio::time::timeout(PATIENCE, look.wait_for(|look| !look.wanted)).await;
        }
        self.current()
    }

    /// Asks for a fetch where it is time for one; whether there is one to wait for.
    fn ask_for_look(&self) -> bool {
        let pause = match self.source {
            Source::Provider { .. } => UNKNOWN_KEY_PAUSE,
            Source::Development(_) => UNKNOWN_KEY_PAUSE_IN_DEVELOPMENT,
            Source::Nobody => return false,
            #[cfg(test)]
            Source::Scripted(_) => UNKNOWN_KEY_PAUSE,
        };
        let mut wanted = false;
        self.look.send_if_modified(|look| {
            let asked = !look.wanted && look.last.is_none_or(|last| last.elapsed() >= pause);
            look.wanted |= asked;
            wanted = look.wanted;
            asked
        });
        wanted
    }

    pub(super) fn standing(&self) -> Standing {
        match (&self.source, self.current()) {
            (Source::Nobody, _) => Standing::NotConfigured,
            (_, None) => Standing::Unreachable,
            (_, Some(_)) if self.failing.load(Ordering::Relaxed) => Standing::Stale,
            _ => Standing::Good,
        }
    }

    /// Fetches at once, ahead of the keys' age, and when a request asks for it; never returns.
    pub(super) async fn run(&self) {
        if matches!(self.source, Source::Nobody) {
            std::future::pending::<()>().await;
        }
        let mut look = self.look.subscribe();
        loop {
            let pause = match self.refresh().await {
                Ok(()) => self.ttl.mul_f64(0.8),
                Err(()) if self.current().is_none() => PAUSE_WITHOUT_KEYS,
                Err(()) => PAUSE_WITH_KEYS.min(self.ttl),
            };
            let due = tokio::time::sleep(pause);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    () = async { drop(look.wait_for(|look| look.wanted).await) } => {
                        // What is due stays due, unless something has changed at the provider, or it has gone.
                        if self.look_for_keys().await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Metadata and keys, with retries. This alone says how the provider stands.
    async fn refresh(&self) -> Result<(), ()> {
        let retry =
            ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_factor(2.0).with_max_times(TRIES - 1);
        let outcome = self.take((|| self.fetch(None)).retry(retry).await);
        self.failing.store(outcome.is_err(), Ordering::Relaxed);
        self.tried.send_replace(true);
        outcome
    }

    /// The keys alone, in one request, for the sake of an unknown key id.
    async fn look_for_keys(&self) -> Result<(), ()> {
        // From the request to the provider on, and not from what asked for it: that may have waited for a refresh.
        self.look.send_modify(|look| look.last = Some(Instant::now()));
        let known = self.current.load().as_ref().and_then(|snapshot| snapshot.metadata.clone());
        let outcome = self.take(self.fetch(known).await);
        self.look.send_modify(|look| look.wanted = false);
        outcome
    }

    /// Puts what was fetched in the place of what was there.
    fn take(&self, fetched: Result<Fetched, ProviderError>) -> Result<(), ()> {
        let before = self.current.load_full();
        match fetched {
            Ok((issuer, metadata, keys)) => {
                let unchanged = |old: &Arc<Snapshot>| old.issuer == issuer && old.keys.same(&keys);
                let generation = match &before {
                    Some(old) if unchanged(old) => old.generation,
                    old => {
                        if metadata.is_some() {
                            tracing::info!(%issuer, keys = keys.len(), "the identity provider's keys are here");
                        }
                        old.as_ref().map_or(0, |old| old.generation + 1)
                    }
                };
                let snapshot = Snapshot { issuer, metadata, generation, keys, fetched: Instant::now() };
                self.current.store(Some(Arc::new(snapshot)));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, keys_left = self.current().is_some(), "cannot fetch the identity provider's keys");
                Err(())
            }
        }
    }

    async fn fetch(&self, known: Option<Metadata>) -> Result<Fetched, ProviderError> {
        match &self.source {
            Source::Provider { settings, http } => {
                let metadata = match known {
                    Some(metadata) => metadata,
                    None => Metadata::fetch(settings, http).await?,
                };
                let keys = KeySet::from(http.json::<Document>(&metadata.jwks_uri).await?);
                if keys.len() == 0 {
                    return Err(ProviderError::NoKeys(metadata.jwks_uri.to_string()));
                }
                Ok((metadata.issuer.clone(), Some(metadata), keys))
            }
            Source::Development(issuer) => Ok((DevelopmentIssuer::ISSUER.to_owned(), None, issuer.keys()?)),
            Source::Nobody => Ok((String::new(), None, KeySet::default())),
            #[cfg(test)]
            Source::Scripted(script) => script.answer(known).await,
        }
    }
}

#[cfg(test)]
mod tests;
