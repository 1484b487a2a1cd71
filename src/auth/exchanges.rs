//! How many logins wait for the provider's token endpoint. One that does not answer holds each for as long as the client's time
//! allows, and these places are other requests', too.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most exchanges of codes at once.
const MOST: usize = 64;

/// The exchanges of one process.
#[derive(Debug)]
pub(super) struct Exchanges {
    places: Semaphore,
    /// Whether the last exchange that has ended failed for the provider's reasons.
    failing: AtomicBool,
    /// The exchange that finds out, while it fails, whether it still does.
    trial: Semaphore,
}

/// Why an exchange does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are as many as there may be.
    Full,
    /// The provider fails, and another exchange finds out whether it still does.
    Failing,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self { places: Semaphore::new(MOST), failing: AtomicBool::new(false), trial: Semaphore::new(1) }
    }

    /// A place for one exchange; [`Exchange::ended`] says how it went.
    pub(super) fn begin(&self) -> Result<Exchange<'_>, Refusal> {
        let place = self.places.try_acquire().map_err(|_| Refusal::Full)?;
        let failing = self.failing.load(Ordering::Relaxed);
        let trial = failing.then(|| self.trial.try_acquire()).transpose().map_err(|_| Refusal::Failing)?;
        Ok(Exchange { exchanges: self, _place: place, _trial: trial })
    }
}

/// One exchange. One that is given up before it has ended says nothing of the provider.
#[derive(Debug)]
pub(super) struct Exchange<'e> {
    exchanges: &'e Exchanges,
    _place: SemaphorePermit<'e>,
    _trial: Option<SemaphorePermit<'e>>,
}

impl Exchange<'_> {
    /// Notes whether the provider has answered.
    pub(super) fn ended(self, answered: bool) {
        self.exchanges.failing.store(!answered, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let exchanges = Exchanges::new();
        let all: Vec<_> = (0..MOST).map(|_| exchanges.begin().unwrap()).collect();
        assert_eq!(exchanges.begin().unwrap_err(), Refusal::Full);
        drop(all);
        assert!(exchanges.begin().is_ok());
    }

    #[test]
    fn while_the_provider_fails_one_at_a_time_finds_out_whether_it_still_does() {
        let exchanges = Exchanges::new();
        exchanges.begin().unwrap().ended(false);
        let trial = exchanges.begin().unwrap();
        assert_eq!(exchanges.begin().unwrap_err(), Refusal::Failing);
        drop(trial);
        exchanges.begin().unwrap().ended(false);
        let trial = exchanges.begin().unwrap();
        assert_eq!(exchanges.begin().unwrap_err(), Refusal::Failing);
        trial.ended(true);
        let both = (exchanges.begin(), exchanges.begin());
        assert!(both.0.is_ok() && both.1.is_ok());
    }
}
