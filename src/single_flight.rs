//! Single flight: concurrent readiness probes share one check, so that many probes cost no more than checks in sequence.

use std::time::Instant;
use tokio::sync::Mutex;

/// The last result, and when its check began.
#[derive(Debug)]
pub(crate) struct SingleFlight<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> SingleFlight<T> {
    /// Runs `check`, or returns the result of a check that began after this call.
    pub(crate) async fn run(&self, check: impl Future<Output = T>) -> T {
        let called = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((began, value)) = &*last
            && *began >= called
        {
            return value.clone();
        }
        let began = Instant::now();
        let value = check.await;
        *last = Some((began, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn callers_during_a_check_share_the_next_one() {
        let (flight, checks) = (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let call = || {
            let (flight, checks, gate) = (Arc::clone(&flight), Arc::clone(&checks), Arc::clone(&gate));
            async move {
                let check = async {
                    let number = checks.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.map(std::mem::forget).ok();
                    number
                };
                flight.run(check).await
            }
        };
        let first = tokio::spawn(call());
        while checks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..100).map(|_| tokio::spawn(call())).collect();
        tokio::task::yield_now().await;
        gate.add_permits(2);
        assert_eq!(first.await.ok(), Some(0));
        for other in others {
            assert_eq!(other.await.ok(), Some(1), "the check began after the call");
        }
        assert_eq!(checks.load(Ordering::SeqCst), 2);
    }
}
