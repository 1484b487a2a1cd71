//! Limits the rate of requests for each client: a steady rate and a burst.

use super::client::Client;
use super::interceptor::Interceptor;
use super::is_health;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use crate::metrics::{Limit, Metrics};
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many requests the client has left, and when it has all of them again (draft-ietf-httpapi-ratelimit-headers-10): a
/// structured field, `"client";r=49;t=3`.
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What the limit is: `"client";q=50;w=5`, the burst and the seconds in which an empty bucket fills.
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The most clients that have buckets of their own; these take about 10 MB. Callers whose token is known go on having one until
/// there are twice as many: whoever has many addresses, such as an IPv6 /48, makes no token with them.
const CLIENTS_MAX: usize = 65_536;

/// The number of buckets that all others share while there are more.
const OVERFLOW_BUCKETS: u64 = 1_024;

/// How often the buckets of inactive clients are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The number of checks between two calls of [`RateLimit::maintain`], by which the number of buckets may exceed its limit.
const CHECKS_PER_MAINTENANCE: u64 = 256;

/// The bucket that a request counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket {
    Client(Client),
    Overflow(u64),
}

/// The limiter, shared by all routes.
#[derive(Debug, Clone)]
pub(super) struct RateLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limiter: DefaultKeyedRateLimiter<Bucket, StateInformationMiddleware>,
    /// The value of RateLimit-Policy.
    policy: HeaderValue,
    burst: u32,
    /// The time in which one request comes back.
    interval: Duration,
    hasher: RandomState,
    clock: DefaultClock,
    clients_max: usize,
    /// Whether there is no further bucket for an address, and none for a caller.
    full: [AtomicBool; 2],
    checks: AtomicU64,
    /// Milliseconds after `began` of the next sweep.
    next_sweep: AtomicU64,
    began: Instant,
    metrics: Metrics,
}

impl RateLimit {
    /// None if the rate is 0: there is then no limit.
    pub(super) fn new(settings: &Settings, metrics: Metrics) -> Option<Self> {
        let per_minute = NonZeroU32::new(settings.rate_limit_per_minute)?;
        let burst = NonZeroU32::new(settings.rate_limit_burst)?;
        Some(Self::with(Quota::per_minute(per_minute).allow_burst(burst), CLIENTS_MAX, metrics))
    }

    fn with(quota: Quota, clients_max: usize, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            limiter: RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>(),
            policy: policy(quota),
            burst: quota.burst_size().get(),
            interval: quota.replenish_interval(),
            hasher: RandomState::new(),
            clock: DefaultClock::default(),
            clients_max,
            full: Default::default(),
            checks: AtomicU64::new(0),
            next_sweep: AtomicU64::new(0),
            began: Instant::now(),
            metrics,
        }))
    }

    /// Counts a request; how many more there may be at once. An error says how many seconds to wait.
    fn check(&self, client: Client) -> Result<u32, u64> {
        let inner = &self.0;
        if inner.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_PER_MAINTENANCE) {
            self.maintain();
        }
        let mut bucket = Bucket::Client(client);
        let is_caller = matches!(client, Client::Caller(_));
        if inner.full[usize::from(is_caller)].load(Ordering::Relaxed) {
            bucket = Bucket::Overflow(inner.hasher.hash_one(&bucket) % OVERFLOW_BUCKETS);
        }
        let checked = inner.limiter.check_key(&bucket);
        checked.map(|state| state.remaining_burst_capacity()).map_err(|not_until| {
            // An earlier try would fail again.
            whole_seconds(not_until.wait_time_from(inner.clock.now()))
        })
    }

    /// Says what is left, and in how many seconds there is more of it.
    fn describe(&self, response: &mut Response, left: u32, seconds: u64) {
        if let Ok(state) = HeaderValue::try_from(format!("\"client\";r={left};t={seconds}")) {
            response.headers_mut().insert(RATELIMIT, state);
        }
        response.headers_mut().insert(RATELIMIT_POLICY, self.0.policy.clone());
    }

    /// Counts the buckets, and from time to time removes those that are full again, on another thread.
    fn maintain(&self) {
        let inner = &self.0;
        self.count();
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
                this.count();
            });
        }
    }

    fn count(&self) {
        let Inner { limiter, clients_max, full: [addresses, callers], .. } = &*self.0;
        let clients = limiter.len();
        addresses.store(clients >= *clients_max, Ordering::Relaxed);
        callers.store(clients as u64 >= 2 * *clients_max as u64 + OVERFLOW_BUCKETS, Ordering::Relaxed);
    }
}

/// Whole seconds (RFC 9110, section 10.2.3), rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The value of RateLimit-Policy.
fn policy(quota: Quota) -> HeaderValue {
    let (burst, window) = (quota.burst_size(), whole_seconds(quota.burst_size_replenished_in()));
    // Digits and these letters are a header's value.
    HeaderValue::try_from(format!("\"client\";q={burst};w={window}")).unwrap_or(HeaderValue::from_static("\"client\""))
}

impl Interceptor for RateLimit {
    /// How many more requests there may be, where this one counts.
    type Context = Option<u32>;

    fn on_request(&self, request: &mut Request) -> Result<Option<u32>, Response> {
        let Some(client) = request.extensions().get::<Client>().filter(|_| !is_health(request.uri().path())) else {
            return Ok(None);
        };
        self.check(*client).map(Some).map_err(|seconds| {
            self.0.metrics.refused(Limit::Rate);
            let seconds = seconds.max(1);
            let wait = [(RETRY_AFTER, seconds.to_string())];
            let mut response = (wait, ApiError::from(ErrorCode::RateLimited)).into_response();
            self.describe(&mut response, 0, seconds);
            response
        })
    }

    fn on_response(&self, left: Option<u32>, response: &mut Response) {
        if let Some(left) = left {
            let missing = self.0.burst.saturating_sub(left);
            self.describe(response, left, whole_seconds(self.0.interval * missing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn limit(burst: u32, clients_max: usize) -> RateLimit {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        RateLimit::with(Quota::per_minute(NonZeroU32::MIN).allow_burst(burst), clients_max, Metrics::default())
    }

    #[tokio::test]
    async fn addresses_of_one_network_share_a_bucket() {
        let limit = limit(1, 100);
        let check = |ip: IpAddr| limit.check(Client::of(ip));
        let v6 = |network: u16, host: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host);
        assert_eq!(check(v6(1, 1).into()), Ok(0));
        assert!(check(v6(1, 2).into()).is_err());
        assert_eq!(check(v6(2, 1).into()), Ok(0));
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(check(v4.into()), Ok(0));
        let wait = check(v4.to_ipv6_mapped().into());
        assert_eq!(wait, Err(60), "one a minute, rounded up");
    }

    #[tokio::test]
    async fn the_largest_burst_works_at_the_slowest_rate() {
        let limit = limit(1_000_000, 100);
        let client = Client::of(Ipv4Addr::new(192, 0, 2, 1).into());
        let passed = (0..1_000_100).take_while(|_| limit.check(client).is_ok()).count();
        assert_eq!(passed, 1_000_000);
    }

    #[tokio::test]
    async fn addresses_use_up_no_callers_share() {
        let limit = limit(1, 1_000);
        let address = |number: u32| Client::of(Ipv4Addr::from_bits(number).into());
        let refused = (0..20_000).filter(|number| limit.check(address(*number)).is_err()).count();
        assert!(refused > 10_000, "they share buckets: {refused}");
        for caller in 0..100 {
            assert_eq!(limit.check(Client::Caller(caller)), Ok(0), "{caller}");
            assert!(limit.check(Client::Caller(caller)).is_err(), "its own share is used up");
        }
        // Callers without end have a bound, too.
        let refused = (100..100_000).filter(|caller| limit.check(Client::Caller(*caller)).is_err()).count();
        let most = 2 * 1_000 + CHECKS_PER_MAINTENANCE + 2 * OVERFLOW_BUCKETS;
        assert!(refused > 90_000 && limit.0.limiter.len() as u64 <= most, "{refused}, {}", limit.0.limiter.len());
    }

    #[tokio::test]
    async fn buckets_are_bounded_for_any_number_of_addresses() {
        let limit = limit(1, 1_000);
        let refused =
            (0..100_000u32).filter(|n| limit.check(Client::of(Ipv4Addr::from_bits(*n).into())).is_err()).count();
        let most = 1_000 + CHECKS_PER_MAINTENANCE + OVERFLOW_BUCKETS;
        assert!(limit.0.limiter.len() as u64 <= most, "{} clients", limit.0.limiter.len());
        assert!(refused > 90_000, "{refused}");
    }
}
