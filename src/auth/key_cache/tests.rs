//! When keys are fetched, and how long they are used, by a clock that the test controls.

#![allow(clippy::unwrap_used)]
use super::super::key_source::PROVIDER_MIN_REFRESH_INTERVAL;
use super::*;
use futures_util::future::BoxFuture;
use serde_json::json;
use std::sync::Mutex;
use tokio::time::sleep_until;

/// A key source without a network. Clones share their state.
#[derive(Debug, Clone, Default)]
struct ScriptedSource(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    fetches: Vec<(Fetch, Instant)>,
    /// The fetches that fail.
    failing: &'static [Fetch],
    /// How long a fetch takes.
    latency: Duration,
}

/// What a fetch asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Everything,
    OnDemand,
}

const ALL: [Fetch; 2] = [Fetch::Everything, Fetch::OnDemand];

impl KeySource for ScriptedSource {
    fn fetch(&self, known: Option<Metadata>) -> BoxFuture<'_, Result<FetchedKeys, ProviderError>> {
        Box::pin(async move {
            let fetch = if known.is_some() { Fetch::OnDemand } else { Fetch::Everything };
            let latency = self.set(|script| {
                script.fetches.push((fetch, Instant::now()));
                script.latency
            });
            tokio::time::sleep(latency).await;
            if self.set(|script| script.failing.contains(&fetch)) {
                return Err(ProviderError::NoKeys("the script".to_owned()));
            }
            let metadata = known.unwrap_or_else(|| {
                serde_json::from_value(json!({"issuer": "https://a.example", "jwks_uri": "https://a.example/keys"}))
                    .unwrap()
            });
            Ok(FetchedKeys { issuer: metadata.issuer.clone(), metadata: Some(metadata), keys: KeySet::default() })
        })
    }

    fn min_refresh_interval(&self) -> Duration {
        PROVIDER_MIN_REFRESH_INTERVAL
    }
}

impl ScriptedSource {
    fn set<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn count(&self, of: Fetch) -> usize {
        self.0.lock().unwrap().fetches.iter().filter(|(fetch, _)| *fetch == of).count()
    }
}

/// A running cache, its source, and the clock.
struct RunningCache {
    cache: Arc<KeyCache>,
    source: ScriptedSource,
    began: Instant,
}

impl RunningCache {
    fn begin(ttl: Duration) -> Self {
        let source = ScriptedSource::default();
        let cache = Arc::new(KeyCache::new(Some(Box::new(source.clone())), ttl));
        let running = Arc::clone(&cache);
        tokio::spawn(async move { running.run().await });
        Self { cache, source, began: Instant::now() }
    }

    /// Waits until so many seconds after the beginning.
    async fn at(&self, seconds: f64) {
        sleep_until(self.began + Duration::from_secs_f64(seconds)).await;
    }
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: f64 = 86_400.0;

#[tokio::test(start_paused = true)]
async fn refresh_begins_at_four_fifths_of_the_ttl() {
    let running = RunningCache::begin(HOUR);
    for (seconds, refreshes) in [(2879.9, 1), (2880.1, 2), (5759.9, 2), (5760.1, 3)] {
        running.at(seconds).await;
        assert_eq!(running.source.count(Fetch::Everything), refreshes, "after {seconds} s");
    }
    assert_eq!(running.source.count(Fetch::OnDemand), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_are_used_for_a_day_after_the_last_fetch() {
    let running = RunningCache::begin(HOUR);
    // The last fetch is the one after 2880 seconds.
    running.at(3000.0).await;
    running.source.set(|script| script.failing = &ALL);
    for (seconds, available, status) in [
        (5759.9, true, KeyStatus::Fresh),
        (5762.0, true, KeyStatus::Stale),
        (2880.0 + DAY - 0.1, true, KeyStatus::Stale),
        (2880.0 + DAY + 0.1, false, KeyStatus::Unavailable),
        (2880.0 + 2.0 * DAY, false, KeyStatus::Unavailable),
    ] {
        running.at(seconds).await;
        assert_eq!(
            (running.cache.current().is_some(), running.cache.status()),
            (available, status),
            "after {seconds} s"
        );
    }
    running.source.set(|script| script.failing = &[]);
    running.at(2880.0 + 2.0 * DAY + 4.0).await;
    assert_eq!((running.cache.current().is_some(), running.cache.status()), (true, KeyStatus::Fresh));
}

#[tokio::test(start_paused = true)]
async fn unknown_kid_refresh_happens_at_most_every_half_minute() {
    let running = RunningCache::begin(HOUR);
    for (seconds, fetches) in [(100.0, 1), (100.1, 1), (129.9, 1), (130.1, 2), (160.0, 2), (160.2, 3)] {
        running.at(seconds).await;
        assert!(running.cache.look(Asker::Request).await.is_some());
        assert_eq!(running.source.count(Fetch::OnDemand), fetches, "after {seconds} s");
    }
    assert_eq!(running.source.count(Fetch::Everything), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_kid_refreshes_stay_rate_limited_beside_slow_refreshes() {
    // Refreshes begin 32 seconds after each other, take 20 of them, and so overlap every other fetch for unknown keys.
    let running = RunningCache::begin(Duration::from_secs(15));
    running.at(1.0).await;
    running.source.set(|script| script.latency = Duration::from_secs(20));
    for second in 2..1_000 {
        running.at(f64::from(second)).await;
        let cache = Arc::clone(&running.cache);
        tokio::spawn(async move { cache.look(Asker::Request).await });
    }
    let fetches = running.source.set(|script| script.fetches.clone());
    let on_demand: Vec<Instant> =
        fetches.iter().filter(|(fetch, _)| *fetch == Fetch::OnDemand).map(|(_, at)| *at).collect();
    assert!(on_demand.len() > 10 && running.source.count(Fetch::Everything) > 10, "{fetches:?}");
    for pair in on_demand.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= PROVIDER_MIN_REFRESH_INTERVAL, "{pause:?} between two");
    }
}

#[tokio::test(start_paused = true)]
async fn logins_wait_for_the_next_look_which_comes_after_five_seconds() {
    let running = RunningCache::begin(HOUR);
    running.at(100.0).await;
    running.cache.look(Asker::Request).await.unwrap();
    running.at(101.0).await;
    running.cache.look(Asker::Request).await.unwrap();
    assert_eq!(running.source.count(Fetch::OnDemand), 1, "a request does not wait");
    assert_eq!(running.began.elapsed().as_secs(), 101);
    let logins = (0..LOGIN_WAITERS_MAX + 10).map(|_| running.cache.look(Asker::Login));
    futures_util::future::join_all(logins).await;
    assert_eq!(running.began.elapsed().as_secs(), 105);
    assert_eq!(running.source.count(Fetch::OnDemand), 2, "all logins share one");
    // One that is in progress is waited for, and no longer than it is for others.
    running.source.set(|script| script.latency = Duration::from_mins(1));
    running.at(200.0).await;
    running.cache.look(Asker::Login).await.unwrap();
    assert_eq!(running.began.elapsed().as_secs(), 205);
    running.cache.look(Asker::Login).await.unwrap();
    assert_eq!(running.began.elapsed().as_secs(), 210);
    assert_eq!(running.source.count(Fetch::OnDemand), 3);
}

#[tokio::test(start_paused = true)]
async fn unknown_kid_during_a_refresh_waits_for_the_next_fetch() {
    let running = RunningCache::begin(HOUR);
    running.at(2879.0).await;
    running.source.set(|script| script.latency = Duration::from_secs(2));
    running.at(2881.0).await;
    assert_eq!((running.source.count(Fetch::Everything), running.source.count(Fetch::OnDemand)), (2, 0));
    running.cache.look(Asker::Request).await.unwrap();
    assert_eq!(running.source.count(Fetch::OnDemand), 1);
    assert_eq!(running.began.elapsed().as_secs(), 2884);
}

#[tokio::test(start_paused = true)]
async fn failed_unknown_kid_refresh_triggers_a_full_refresh() {
    let running = RunningCache::begin(HOUR);
    running.at(100.0).await;
    running.source.set(|script| script.failing = &[Fetch::OnDemand]);
    running.cache.look(Asker::Request).await.unwrap();
    running.at(100.1).await;
    assert_eq!((running.source.count(Fetch::OnDemand), running.source.count(Fetch::Everything)), (1, 2));
    assert_eq!(running.cache.status(), KeyStatus::Fresh, "the refresh was good");

    running.source.set(|script| script.failing = &ALL);
    running.at(200.0).await;
    running.cache.look(Asker::Request).await.unwrap();
    assert_eq!(running.cache.status(), KeyStatus::Fresh, "the full refresh has not ended yet");
    running.at(202.0).await;
    assert_eq!(running.cache.status(), KeyStatus::Stale, "the refresh failed too");
    running.source.set(|script| script.failing = &[]);
    running.at(232.0).await;
    assert_eq!(running.cache.status(), KeyStatus::Fresh, "the retry after the pause succeeded");
}

#[tokio::test(start_paused = true)]
async fn successful_unknown_kid_refresh_does_not_hide_failing_refreshes() {
    let running = RunningCache::begin(HOUR);
    running.at(2879.0).await;
    running.source.set(|script| script.failing = &[Fetch::Everything]);
    running.at(2890.0).await;
    assert_eq!(running.cache.status(), KeyStatus::Stale);
    running.cache.look(Asker::Request).await.unwrap();
    assert_eq!((running.source.count(Fetch::OnDemand), running.cache.status()), (1, KeyStatus::Stale));
}
