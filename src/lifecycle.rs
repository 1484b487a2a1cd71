//! Where the process stands between its start and its end, and the signals that move it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Where the process stands. Once it serves it does not go back, once it drains it does not serve again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Listening; the database has not answered yet.
    #[default]
    Starting,
    /// Another process is migrating.
    WaitingForLock,
    /// Migrating.
    Migrating,
    /// The schema is not one that this build can serve with.
    WaitingForSchema,
    /// Taking requests.
    Serving,
    /// Told to stop: readiness is 503, requests in flight end.
    Draining,
}

impl Phase {
    pub(crate) const ALL: [Self; 6] =
        [Self::Starting, Self::WaitingForLock, Self::Migrating, Self::WaitingForSchema, Self::Serving, Self::Draining];

    /// The phase as health answers name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WaitingForLock => "waiting-for-lock",
            Self::Migrating => "migrating",
            Self::WaitingForSchema => "waiting-for-schema",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }

    /// The steps of the start may come in any order.
    const fn rank(self) -> u8 {
        match self {
            Self::Starting | Self::WaitingForLock | Self::Migrating | Self::WaitingForSchema => 0,
            Self::Serving => 1,
            Self::Draining => 2,
        }
    }
}

/// The phase, shared by everything that asks for it or waits for it. By default that of a process that has just begun.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    served: Arc<AtomicBool>,
    times: Arc<Mutex<Times>>,
}

/// How long the process was in each phase.
#[derive(Debug)]
struct Times {
    spent: [Duration; Phase::ALL.len()],
    /// When the present phase began.
    since: Instant,
}

impl Default for Times {
    fn default() -> Self {
        Self { spent: Default::default(), since: Instant::now() }
    }
}

impl Lifecycle {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`; does nothing where the process is further.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let moves = *now != phase && now.rank() <= phase.rank();
            if moves {
                let mut times = self.lock_times();
                let spent = times.since.elapsed();
                times.spent[*now as usize] += spent;
                times.since += spent;
                *now = phase;
                self.served.fetch_or(phase == Phase::Serving, Ordering::Relaxed);
            }
            moves
        });
    }

    /// The phases, with the time that the process has been in each so far.
    pub(crate) fn times(&self) -> [(Phase, Duration); Phase::ALL.len()] {
        let (now, times) = (self.phase(), self.lock_times());
        Phase::ALL.map(|phase| {
            let current = if phase == now { times.since.elapsed() } else { Duration::ZERO };
            (phase, times.spent[phase as usize] + current)
        })
    }

    fn lock_times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process has ever been ready to take requests; while it drains, it still takes them.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Returns once the process is ready to take requests, or has been told to stop: whether it has been ready.
    pub async fn ready(&self) -> bool {
        // Fails only without a sender, and `self` is one.
        let _ = self.phase.subscribe().wait_for(|phase| phase.rank() >= Phase::Serving.rank()).await;
        self.has_served()
    }

    /// Returns once the process has been told to stop.
    pub async fn draining(&self) {
        // Fails only without a sender, and `self` is one.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Draining).await;
    }
}

/// SIGTERM and SIGINT, caught from the moment of [`Signals::install`].
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The first signal begins the drain; the second exits at once, with 1.
    pub(super) async fn watch(mut self, lifecycle: Lifecycle) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping: requests in flight are finished; a second signal exits at once");
        lifecycle.enter(Phase::Draining);
        let name = self.next().await;
        tracing::warn!(signal = name, "second signal: exiting at once");
        std::process::exit(1);
    }

    /// The name of the first one.
    pub(crate) async fn first(mut self) -> &'static str {
        self.next().await
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
