//! Where the process stands between its start and its end, and the signals that move it.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Where the process stands. It only ever moves forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listening; the database is being made ready.
    Starting,
    /// Taking requests.
    Serving,
    /// Told to stop: readiness is 503, requests in flight end.
    Draining,
}

impl Phase {
    /// The phase in lower case, as health answers name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// The phase, shared by everything that asks for it or waits for it.
#[derive(Debug, Clone)]
pub struct Lifecycle(watch::Sender<Phase>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl Lifecycle {
    /// A process that has just begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves on to `phase`; does nothing where the process is there or further.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forwards = *now < phase;
            if forwards {
                *now = phase;
            }
            forwards
        });
    }

    /// Returns once the process has been told to stop.
    pub async fn draining(&self) {
        // Fails only without a sender, and `self` is one.
        let _ = self.0.subscribe().wait_for(|phase| *phase == Phase::Draining).await;
    }
}

/// SIGTERM and SIGINT, caught from the moment of [`Signals::install`].
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
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

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
