//! When the provider is asked, and for how long its answers serve: by a clock that is turned by hand.

#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;
use std::sync::Mutex;
use tokio::time::sleep_until;

/// A provider without a network.
#[derive(Debug, Clone, Default)]
pub(in crate::auth) struct Script(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    asked: Vec<(Asked, Instant)>,
    /// What gets no answer.
    down: &'static [Asked],
    /// How long an answer takes.
    takes: Duration,
}

/// What the provider was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Everything,
    Keys,
}

const ALL: [Asked; 2] = [Asked::Everything, Asked::Keys];

impl Script {
    pub(super) async fn answer(&self, known: Option<Metadata>) -> Result<Fetched, ProviderError> {
        let asked = if known.is_some() { Asked::Keys } else { Asked::Everything };
        let takes = self.set(|state| {
            state.asked.push((asked, Instant::now()));
            state.takes
        });
        tokio::time::sleep(takes).await;
        if self.set(|state| state.down.contains(&asked)) {
            return Err(ProviderError::NoKeys("the script".to_owned()));
        }
        let metadata = known.unwrap_or_else(|| {
            serde_json::from_value(json!({"issuer": "https://a.example", "jwks_uri": "https://a.example/keys"}))
                .unwrap()
        });
        Ok((metadata.issuer.clone(), Some(metadata), KeySet::default()))
    }

    fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn count(&self, of: Asked) -> usize {
        self.0.lock().unwrap().asked.iter().filter(|(asked, _)| *asked == of).count()
    }
}

/// A cache at work, its provider, and the clock.
struct World {
    cache: Arc<KeyCache>,
    script: Script,
    began: Instant,
}

impl World {
    fn begin(ttl: Duration) -> Self {
        let script = Script::default();
        let cache = Arc::new(KeyCache::new(Source::Scripted(script.clone()), ttl));
        let running = Arc::clone(&cache);
        tokio::spawn(async move { running.run().await });
        Self { cache, script, began: Instant::now() }
    }

    /// Waits until so many seconds after the beginning.
    async fn at(&self, seconds: f64) {
        sleep_until(self.began + Duration::from_secs_f64(seconds)).await;
    }
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: f64 = 86_400.0;

#[tokio::test(start_paused = true)]
async fn a_refresh_begins_at_four_fifths_of_the_ttl_and_not_before() {
    let world = World::begin(HOUR);
    for (seconds, refreshes) in [(2879.9, 1), (2880.1, 2), (5759.9, 2), (5760.1, 3)] {
        world.at(seconds).await;
        assert_eq!(world.script.count(Asked::Everything), refreshes, "after {seconds} s");
    }
    assert_eq!(world.script.count(Asked::Keys), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_serve_until_a_day_after_the_last_fetch_and_no_longer() {
    let world = World::begin(HOUR);
    // The last fetch is the one after 2880 seconds.
    world.at(3000.0).await;
    world.script.set(|state| state.down = &ALL);
    for (seconds, serves, standing) in [
        (5759.9, true, Standing::Good),
        (5762.0, true, Standing::Stale),
        (2880.0 + DAY - 0.1, true, Standing::Stale),
        (2880.0 + DAY + 0.1, false, Standing::Unreachable),
        (2880.0 + 2.0 * DAY, false, Standing::Unreachable),
    ] {
        world.at(seconds).await;
        assert_eq!((world.cache.current().is_some(), world.cache.standing()), (serves, standing), "after {seconds} s");
    }
    world.script.set(|state| state.down = &[]);
    world.at(2880.0 + 2.0 * DAY + 4.0).await;
    assert_eq!((world.cache.current().is_some(), world.cache.standing()), (true, Standing::Good));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_again_after_half_a_minute_and_not_before() {
    let world = World::begin(HOUR);
    for (seconds, fetches) in [(100.0, 1), (100.1, 1), (129.9, 1), (130.1, 2), (160.0, 2), (160.2, 3)] {
        world.at(seconds).await;
        assert!(world.cache.refreshed().await.is_some());
        assert_eq!(world.script.count(Asked::Keys), fetches, "after {seconds} s");
    }
    assert_eq!(world.script.count(Asked::Everything), 1);
}

#[tokio::test(start_paused = true)]
async fn however_looks_for_unknown_keys_and_refreshes_meet_the_looks_are_half_a_minute_apart() {
    // Refreshes begin 32 seconds after each other, take 20 of them, and so meet every other look.
    let world = World::begin(Duration::from_secs(15));
    world.at(1.0).await;
    world.script.set(|state| state.takes = Duration::from_secs(20));
    for second in 2..1_000 {
        world.at(f64::from(second)).await;
        let cache = Arc::clone(&world.cache);
        tokio::spawn(async move { cache.refreshed().await });
    }
    let asked = world.script.set(|state| state.asked.clone());
    let looks: Vec<Instant> = asked.iter().filter(|(asked, _)| *asked == Asked::Keys).map(|(_, at)| *at).collect();
    assert!(looks.len() > 10 && world.script.count(Asked::Everything) > 10, "{asked:?}");
    for pair in looks.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= UNKNOWN_KEY_PAUSE, "{pause:?} between two");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_an_unknown_key_during_a_refresh_waits_for_the_look_that_follows_it() {
    let world = World::begin(HOUR);
    world.at(2879.0).await;
    world.script.set(|state| state.takes = Duration::from_secs(2));
    world.at(2881.0).await;
    assert_eq!((world.script.count(Asked::Everything), world.script.count(Asked::Keys)), (2, 0));
    world.cache.refreshed().await.unwrap();
    assert_eq!(world.script.count(Asked::Keys), 1);
    assert_eq!(world.began.elapsed().as_secs(), 2884);
}

#[tokio::test(start_paused = true)]
async fn a_look_for_an_unknown_key_that_fails_says_nothing_of_the_provider_but_brings_the_refresh_forward() {
    let world = World::begin(HOUR);
    world.at(100.0).await;
    world.script.set(|state| state.down = &[Asked::Keys]);
    world.cache.refreshed().await.unwrap();
    world.at(100.1).await;
    assert_eq!((world.script.count(Asked::Keys), world.script.count(Asked::Everything)), (1, 2));
    assert_eq!(world.cache.standing(), Standing::Good, "the refresh was good");

    world.script.set(|state| state.down = &ALL);
    world.at(200.0).await;
    world.cache.refreshed().await.unwrap();
    assert_eq!(world.cache.standing(), Standing::Good, "nobody knows better yet");
    world.at(202.0).await;
    assert_eq!(world.cache.standing(), Standing::Stale, "the refresh failed too");
    world.script.set(|state| state.down = &[]);
    world.at(232.0).await;
    assert_eq!(world.cache.standing(), Standing::Good, "not at the next refresh but one");
}

#[tokio::test(start_paused = true)]
async fn a_look_for_an_unknown_key_that_succeeds_does_not_hide_that_refreshes_fail() {
    let world = World::begin(HOUR);
    world.at(2879.0).await;
    world.script.set(|state| state.down = &[Asked::Everything]);
    world.at(2890.0).await;
    assert_eq!(world.cache.standing(), Standing::Stale);
    world.cache.refreshed().await.unwrap();
    assert_eq!((world.script.count(Asked::Keys), world.cache.standing()), (1, Standing::Stale));
}
