//! Limits the rate of requests for each client: a steady rate and a burst.

use super::client::Network;
use super::interceptor::Interceptor;
use super::is_health;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use crate::telemetry::ClientIp;
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The most clients that have buckets of their own; these take about 10 MB.
const CLIENTS_MAX: usize = 65_536;

/// The number of buckets that all clients share while there are more.
const OVERFLOW_BUCKETS: u64 = 1_024;

/// How often the buckets of inactive clients are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The number of checks between two calls of [`RateLimit::maintain`], by which the number of buckets may exceed its limit.
const CHECKS_PER_MAINTENANCE: u64 = 256;

/// The bucket that a request counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket {
    Client(Network),
    Overflow(u64),
}

/// The limiter, shared by all routes.
#[derive(Debug, Clone)]
pub(super) struct RateLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limiter: DefaultKeyedRateLimiter<Bucket>,
    hasher: RandomState,
    clock: DefaultClock,
    clients_max: usize,
    full: AtomicBool,
    checks: AtomicU64,
    /// Milliseconds after `began` of the next sweep.
    next_sweep: AtomicU64,
    began: Instant,
}

impl RateLimit {
    /// None if the rate is 0: there is then no limit.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let per_minute = NonZeroU32::new(settings.rate_limit_per_minute)?;
        let burst = NonZeroU32::new(settings.rate_limit_burst)?;
        Some(Self::with(Quota::per_minute(per_minute).allow_burst(burst), CLIENTS_MAX))
    }

    fn with(quota: Quota, clients_max: usize) -> Self {
        Self(Arc::new(Inner {
            limiter: RateLimiter::dashmap(quota),
            hasher: RandomState::new(),
            clock: DefaultClock::default(),
            clients_max,
            full: AtomicBool::new(false),
            checks: AtomicU64::new(0),
            next_sweep: AtomicU64::new(0),
            began: Instant::now(),
        }))
    }

    /// Counts a request. An error says how many seconds to wait.
    fn check(&self, ip: IpAddr) -> Result<(), u64> {
        let inner = &self.0;
        if inner.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_PER_MAINTENANCE) {
            self.maintain();
        }
        let mut bucket = Bucket::Client(Network::of(ip));
        if inner.full.load(Ordering::Relaxed) {
            bucket = Bucket::Overflow(inner.hasher.hash_one(&bucket) % OVERFLOW_BUCKETS);
        }
        inner.limiter.check_key(&bucket).map_err(|not_until| {
            let wait = not_until.wait_time_from(inner.clock.now());
            // Whole seconds (RFC 9110, section 10.2.3), rounded up: an earlier try would fail again.
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }

    /// Counts the buckets, and from time to time removes those that are full again, on another thread.
    fn maintain(&self) {
        let inner = &self.0;
        inner.full.store(inner.limiter.len() >= inner.clients_max, Ordering::Relaxed);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (now, due) = (millis(inner.began.elapsed()), inner.next_sweep.load(Ordering::Relaxed));
        let claim = || {
            let next = now + millis(SWEEP_INTERVAL);
            inner.next_sweep.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if now >= due && claim() {
            let this = self.clone();
            tokio::task::spawn_blocking(move || {
                this.0.limiter.retain_recent();
                this.0.limiter.shrink_to_fit();
                this.0.full.store(this.0.limiter.len() >= this.0.clients_max, Ordering::Relaxed);
            });
        }
    }
}

impl Interceptor for RateLimit {
    type Context = ();

    fn on_request(&self, request: &mut Request) -> Result<(), Response> {
        let client = request.extensions().get::<ClientIp>().filter(|_| !is_health(request.uri().path()));
        client.map_or(Ok(()), |client| self.check(client.0)).map_err(|seconds| {
            let wait = [(RETRY_AFTER, seconds.max(1).to_string())];
            (wait, ApiError::from(ErrorCode::RateLimited)).into_response()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn limit(burst: u32, clients_max: usize) -> RateLimit {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        RateLimit::with(Quota::per_minute(NonZeroU32::MIN).allow_burst(burst), clients_max)
    }

    #[tokio::test]
    async fn addresses_of_one_network_share_a_bucket() {
        let limit = limit(1, 100);
        let v6 = |network: u16, host: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into();
        assert_eq!(limit.check(v6(1, 1)), Ok(()));
        assert!(limit.check(v6(1, 2)).is_err());
        assert_eq!(limit.check(v6(2, 1)), Ok(()));
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(limit.check(v4.into()), Ok(()));
        let wait = limit.check(v4.to_ipv6_mapped().into());
        assert_eq!(wait, Err(60), "one a minute, rounded up");
    }

    #[tokio::test]
    async fn the_largest_burst_works_at_the_slowest_rate() {
        let limit = limit(1_000_000, 100);
        let client = Ipv4Addr::new(192, 0, 2, 1).into();
        let passed = (0..1_000_100).take_while(|_| limit.check(client).is_ok()).count();
        assert_eq!(passed, 1_000_000);
    }

    #[tokio::test]
    async fn buckets_are_bounded_for_any_number_of_addresses() {
        let limit = limit(1, 1_000);
        let refused = (0..100_000u32).filter(|n| limit.check(Ipv4Addr::from_bits(*n).into()).is_err()).count();
        let most = 1_000 + CHECKS_PER_MAINTENANCE + OVERFLOW_BUCKETS;
        assert!(limit.0.limiter.len() as u64 <= most, "{} clients", limit.0.limiter.len());
        assert!(refused > 90_000, "{refused}");
    }
}
