//! Counts spans that are lost, for a line of the log now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A loss that goes on is a line in the log this often at most, and one more at a stop.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Spans that were lost for one reason.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those that were lost since that was logged.
    spans: usize,
    logged: Option<Instant>,
}

impl Losses {
    /// Adds spans. How many are to be logged, where the last line is long enough ago.
    pub(super) fn add(&self, spans: usize) -> Option<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.spans += spans;
        if state.logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return None;
        }
        state.logged = Some(Instant::now());
        Some(std::mem::take(&mut state.spans))
    }

    /// How many have not been logged, at the end.
    pub(super) fn rest(&self) -> Option<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut state.spans)).filter(|spans| *spans > 0)
    }
}
