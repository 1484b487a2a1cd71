//! Limits how many logins wait for the provider's token endpoint at once. While the endpoint does not respond, each login
//! waits until the HTTP client's timeout and takes one of the places that all requests share.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most code exchanges at once.
const EXCHANGES_MAX: usize = 64;

/// The code exchanges of the process.
#[derive(Debug)]
pub(super) struct Exchanges {
    permits: Semaphore,
    /// Whether the provider did not respond to the last exchange that ended.
    failing: AtomicBool,
    /// While the provider fails, only one exchange at a time may try it again.
    trial: Semaphore,
}

/// Why an exchange may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExchangeRefused {
    /// The most exchanges are running.
    Full,
    /// The provider fails, and another exchange is trying it again.
    Failing,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(EXCHANGES_MAX), failing: AtomicBool::new(false), trial: Semaphore::new(1) }
    }

    /// Begins an exchange; [`Exchange::ended`] records its outcome.
    pub(super) fn begin(&self) -> Result<Exchange<'_>, ExchangeRefused> {
        let permit = self.permits.try_acquire().map_err(|_| ExchangeRefused::Full)?;
        let failing = self.failing.load(Ordering::Relaxed);
        let trial = failing.then(|| self.trial.try_acquire()).transpose().map_err(|_| ExchangeRefused::Failing)?;
        Ok(Exchange { exchanges: self, _permit: permit, _trial: trial })
    }
}

/// One exchange. Dropping it without [`Exchange::ended`] records no outcome.
#[derive(Debug)]
pub(super) struct Exchange<'e> {
    exchanges: &'e Exchanges,
    _permit: SemaphorePermit<'e>,
    _trial: Option<SemaphorePermit<'e>>,
}

impl Exchange<'_> {
    /// Records whether the provider responded.
    pub(super) fn ended(self, responded: bool) {
        self.exchanges.failing.store(!responded, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exchanges_are_limited() {
        let exchanges = Exchanges::new();
        let all: Vec<_> = (0..EXCHANGES_MAX).map(|_| exchanges.begin().unwrap()).collect();
        assert_eq!(exchanges.begin().unwrap_err(), ExchangeRefused::Full);
        drop(all);
        assert!(exchanges.begin().is_ok());
    }

    #[test]
    fn a_failing_provider_is_tried_by_one_exchange_at_a_time() {
        let exchanges = Exchanges::new();
        exchanges.begin().unwrap().ended(false);
        let trial = exchanges.begin().unwrap();
        assert_eq!(exchanges.begin().unwrap_err(), ExchangeRefused::Failing);
        drop(trial);
        exchanges.begin().unwrap().ended(false);
        let trial = exchanges.begin().unwrap();
        assert_eq!(exchanges.begin().unwrap_err(), ExchangeRefused::Failing);
        trial.ended(true);
        let both = (exchanges.begin(), exchanges.begin());
        assert!(both.0.is_ok() && both.1.is_ok());
    }
}
