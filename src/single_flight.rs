//! One check for all who ask at the same time: a flood of probes costs no more than one check after another.

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
    /// Runs `check`, or returns the result of a check that started after this call: it is never older than the call.
    pub(crate) async fn run(&self, check: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let mut seen = self.0.lock().await;
        if let Some((began, value)) = &*seen
            && *began >= asked
        {
            return value.clone();
        }
        let began = Instant::now();
        let value = check.await;
        *seen = Some((began, value.clone()));
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
    async fn those_who_ask_during_a_look_share_the_next_one() {
        let (recent, looks, gate) =
            (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)), Semaphore::new(0));
        let gate = Arc::new(gate);
        let ask = || {
            let (recent, looks, gate) = (Arc::clone(&recent), Arc::clone(&looks), Arc::clone(&gate));
            async move {
                let look = async {
                    let number = looks.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.map(std::mem::forget).ok();
                    number
                };
                recent.run(look).await
            }
        };
        let first = tokio::spawn(ask());
        while looks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..100).map(|_| tokio::spawn(ask())).collect();
        tokio::task::yield_now().await;
        gate.add_permits(2);
        assert_eq!(first.await.ok(), Some(0));
        for other in others {
            assert_eq!(other.await.ok(), Some(1), "of the look that began after the question");
        }
        assert_eq!(looks.load(Ordering::SeqCst), 2);
    }
}
