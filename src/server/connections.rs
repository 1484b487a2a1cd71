//! Limits the open connections, and closes one to make room for a new one.
//!
//! A connection either waits for its client, which has not sent a whole head or body yet, or is busy with a request. At the
//! limit, the connection that has waited longest is closed, so that clients cannot keep others out by opening connections
//! and sending nothing. nginx makes room in the same way (`ngx_drain_connections` in src/core/ngx_connection.c).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// File descriptors reserved for everything else: the listener, the runtime, standard streams, the provider, files.
const RESERVED_FILES: u64 = 64;

/// The least time between two log lines about closed connections.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// The part of a request that a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// The next request's head, or the rest of it.
    Head,
    /// The rest of a request's body.
    Body,
}

/// A connection's state in one number, so that requests change it without a lock: busy, closing, or since when it waits and
/// for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State(u64);

impl State {
    const BUSY: Self = Self(0);
    const CLOSING: Self = Self(1);

    /// `turn` is at least 1; a later one is greater.
    const fn waiting(turn: u64, wait: WaitingFor) -> Self {
        Self(turn << 1 | matches!(wait, WaitingFor::Body) as u64)
    }

    const fn is_waiting(self) -> bool {
        self.0 > Self::CLOSING.0
    }

    const fn waits_for_head(self) -> bool {
        self.is_waiting() && self.0 & 1 == 0
    }
}

/// All connections of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    /// A connection stays here until it is dropped, even while it is closing: it holds a file until then.
    open: Mutex<HashMap<u64, Arc<Shared>>>,
    /// Signals that a connection was dropped.
    freed: Notify,
    /// The number of the next wait.
    turn: AtomicU64,
    warned_at: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU64,
    close: Notify,
}

impl Shared {
    fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// Begins to close it, unless it is no longer in the state `from`. Returns whether it does.
    fn close(&self, from: State) -> bool {
        let closing =
            self.state.compare_exchange(from.0, State::CLOSING.0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if closing {
            self.close.notify_one();
        }
        closing
    }
}

impl Connections {
    /// Room for `max` connections.
    pub(super) fn new(max: usize) -> Self {
        let (open, warned_at) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { max, open, freed: Notify::new(), turn: AtomicU64::new(1), warned_at }))
    }

    /// Counts a new connection, which waits for its first head. At the limit, closes another one and waits until that has
    /// gone. `None` if all others are busy.
    pub(super) async fn open(&self) -> Option<Connection> {
        loop {
            match self.try_open() {
                Ok(connection) => return Some(connection),
                Err(NoRoom::AllBusy) => return None,
                // No notification is lost: only this task waits for it.
                Err(NoRoom::Closing) => self.0.freed.notified().await,
            }
        }
    }

    fn try_open(&self) -> Result<Connection, NoRoom> {
        let mut open = self.0.open();
        if open.len() >= self.0.max {
            self.0.warn_at_limit();
            return Err(make_room(&open));
        }
        let id = self.0.next_turn();
        let state = State::waiting(id, WaitingFor::Head);
        let shared = Arc::new(Shared { state: AtomicU64::new(state.0), close: Notify::new() });
        open.insert(id, Arc::clone(&shared));
        Ok(Connection(Arc::new(Counted { id, shared, inner: Arc::clone(&self.0) })))
    }

    /// Closes the connections that wait for a head or the rest of one.
    pub(super) fn close_without_request(&self) {
        for shared in self.0.open().values() {
            let state = shared.state();
            if state.waits_for_head() {
                shared.close(state);
            }
        }
    }
}

/// Closes the connection that has waited longest, unless another one is closing already.
fn make_room(open: &HashMap<u64, Arc<Shared>>) -> NoRoom {
    loop {
        let states = || open.values().map(|shared| (shared.state(), shared));
        if states().any(|(state, _)| state == State::CLOSING) {
            return NoRoom::Closing;
        }
        let oldest = states().filter(|(state, _)| state.is_waiting()).min_by_key(|(state, _)| *state);
        match oldest {
            None => return NoRoom::AllBusy,
            Some((state, shared)) if shared.close(state) => return NoRoom::Closing,
            // It has received a request meanwhile.
            Some(_) => {}
        }
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Shared>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn warn_at_limit(&self) {
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            *warned_at = Some(Instant::now());
            tracing::warn!(
                connections = self.max,
                "the limit of connections is reached: those that have sent nothing for longest are closed; see MAX_CONNECTIONS"
            );
        }
    }
}

/// Why there is no room for another connection.
#[derive(Debug, Clone, Copy)]
enum NoRoom {
    /// Another one is closing.
    Closing,
    /// All others are busy with a request.
    AllBusy,
}

/// One connection, counted until its last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    id: u64,
    shared: Arc<Shared>,
    inner: Arc<Inner>,
}

impl Connection {
    /// Marks it as busy with a request: it is then not closed to make room.
    pub(super) fn set_busy(&self) {
        self.set(State::BUSY);
    }

    /// Marks it as waiting for its client.
    pub(super) fn set_waiting(&self, wait: WaitingFor) {
        self.set(State::waiting(self.0.inner.next_turn(), wait));
    }

    /// A connection that is closing keeps that state.
    fn set(&self, state: State) {
        let change = |now| (State(now) != State::CLOSING).then_some(state.0);
        let _ = self.0.shared.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    /// Returns when it is to be closed.
    pub(super) async fn closed(&self) {
        self.0.shared.close.notified().await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inner.open().remove(&self.id);
        self.inner.freed.notify_one();
    }
}

/// The limit of connections: `requested`, or fewer if the process may not open so many files beside `database` connections.
/// Raises the soft limit of files as far as the hard one allows (setrlimit(2)).
pub(super) fn limit(requested: u32, database: u32) -> usize {
    let reserved = RESERVED_FILES + u64::from(database) * 2;
    let wanted = u64::from(requested) + reserved;
    let files = getrlimit(Resource::Nofile);
    let allowed = match files.current {
        Some(soft) if soft < wanted => {
            let raised = files.maximum.map_or(wanted, |hard| hard.min(wanted));
            let limit = Rlimit { current: Some(raised), maximum: files.maximum };
            if setrlimit(Resource::Nofile, limit).is_ok() { raised } else { soft }
        }
        _ => wanted,
    };
    let max = allowed.saturating_sub(reserved).clamp(1, u64::from(requested));
    if max < u64::from(requested) {
        tracing::warn!(
            connections = max,
            files = allowed,
            "MAX_CONNECTIONS is {requested}, but the process may not open so many files: raise its limit (ulimit -n)"
        );
    }
    usize::try_from(max).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        let future = std::pin::pin!(future);
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn is_closed(connection: &Connection) -> bool {
        ready(connection.closed()).is_some()
    }

    fn three(connections: &Connections) -> [Connection; 3] {
        [(); 3].map(|()| ready(connections.open()).unwrap().unwrap())
    }

    #[test]
    fn the_connection_that_waited_longest_is_closed() {
        let connections = Connections::new(3);
        let [first, second, third] = three(&connections);
        first.set_busy();
        second.set_waiting(WaitingFor::Body);
        assert!(ready(connections.open()).is_none(), "waits until one has gone");
        assert!(is_closed(&third), "it has waited longest");
        third.set_waiting(WaitingFor::Head);
        assert!(ready(connections.open()).is_none());
        assert!(!is_closed(&second), "one at a time");
        drop(third);
        let fourth = ready(connections.open()).unwrap().unwrap();
        first.set_waiting(WaitingFor::Head);
        assert!(ready(connections.open()).is_none());
        assert!(is_closed(&second));
        drop(second);
        let fifth = ready(connections.open()).unwrap().unwrap();
        for connection in [&first, &fourth, &fifth] {
            connection.set_busy();
        }
        assert!(ready(connections.open()).unwrap().is_none(), "all are busy");
    }

    #[test]
    fn a_stop_closes_only_connections_without_a_request() {
        let connections = Connections::new(3);
        let [head, body, work] = three(&connections);
        body.set_waiting(WaitingFor::Body);
        work.set_busy();
        connections.close_without_request();
        assert_eq!([&head, &body, &work].map(is_closed), [true, false, false]);
    }
}
