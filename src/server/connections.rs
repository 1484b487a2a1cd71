//! The open connections: how many there may be, and which one is closed to make room for a new one.
//!
//! A connection either waits for its client, who has not sent a whole head or body yet, or is at work. When there are as many
//! as there may be, the one that has waited longest is closed: clients who hold connections and send nothing do not keep
//! others out. nginx makes room in the same way (`ngx_drain_connections` in src/core/ngx_connection.c).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// File descriptors that are left for everything else: the listener, the runtime, standard streams, the provider, files.
const OTHER_FILES: u64 = 64;

/// How often the log says that connections are closed to make room.
const NOTICE_PAUSE: Duration = Duration::from_mins(1);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The next request's head, or the rest of it.
    Head,
    /// The rest of a request's body.
    Body,
}

/// A connection's state, in one number: at work, being closed, or since when it waits and for what. Requests change it without
/// a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State(u64);

impl State {
    const WORKS: Self = Self(0);
    const CLOSES: Self = Self(1);

    /// `turn` is 1 or more, and grows.
    const fn waits(turn: u64, wait: Wait) -> Self {
        Self(turn << 1 | matches!(wait, Wait::Body) as u64)
    }

    const fn is_waiting(self) -> bool {
        self.0 > Self::CLOSES.0
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
    most: usize,
    /// Each until it has gone, also while it is being closed: it holds a file until then.
    open: Mutex<HashMap<u64, Arc<Shared>>>,
    /// One has gone.
    freed: Notify,
    /// Whose turn to wait it is.
    turn: AtomicU64,
    noticed: Mutex<Option<Instant>>,
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

    /// Whether it was still in the state `from`.
    fn close(&self, from: State) -> bool {
        let closes = self.state.compare_exchange(from.0, State::CLOSES.0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if closes {
            self.close.notify_one();
        }
        closes
    }
}

impl Connections {
    /// Room for `most` connections.
    pub(super) fn new(most: usize) -> Self {
        let (open, noticed) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { most, open, freed: Notify::new(), turn: AtomicU64::new(1), noticed }))
    }

    /// Counts one more, which waits for its first head; makes room where there is none, and waits until there is. `None`
    /// where every other one is at work.
    pub(super) async fn open(&self) -> Option<Connection> {
        loop {
            match self.try_open() {
                Ok(connection) => return Some(connection),
                Err(NoRoom::AllAtWork) => return None,
                // One that has gone meanwhile is not missed: this task alone waits.
                Err(NoRoom::Yet) => self.0.freed.notified().await,
            }
        }
    }

    fn try_open(&self) -> Result<Connection, NoRoom> {
        let mut open = self.0.open();
        if open.len() >= self.0.most {
            self.0.notice();
            return Err(make_room(&open));
        }
        let id = self.0.next_turn();
        let state = State::waits(id, Wait::Head);
        let shared = Arc::new(Shared { state: AtomicU64::new(state.0), close: Notify::new() });
        open.insert(id, Arc::clone(&shared));
        Ok(Connection(Arc::new(Counted { id, shared, inner: Arc::clone(&self.0) })))
    }

    /// Closes those that wait for a head or for the rest of one.
    pub(super) fn close_without_request(&self) {
        for shared in self.0.open().values() {
            let state = shared.state();
            if state.waits_for_head() {
                shared.close(state);
            }
        }
    }
}

/// Closes the one that has waited longest, unless another one is being closed already.
fn make_room(open: &HashMap<u64, Arc<Shared>>) -> NoRoom {
    loop {
        let states = || open.values().map(|shared| (shared.state(), shared));
        if states().any(|(state, _)| state == State::CLOSES) {
            return NoRoom::Yet;
        }
        let oldest = states().filter(|(state, _)| state.is_waiting()).min_by_key(|(state, _)| *state);
        match oldest {
            None => return NoRoom::AllAtWork,
            Some((state, shared)) if shared.close(state) => return NoRoom::Yet,
            // It has got a request meanwhile.
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

    fn notice(&self) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if noticed.is_none_or(|at| at.elapsed() >= NOTICE_PAUSE) {
            *noticed = Some(Instant::now());
            tracing::warn!(
                connections = self.most,
                "there are as many connections as there may be: those that have sent nothing for longest are closed; see MAX_CONNECTIONS"
            );
        }
    }
}

/// Why there is no room for another connection.
#[derive(Debug, Clone, Copy)]
enum NoRoom {
    /// One is being closed.
    Yet,
    /// None waits for its client.
    AllAtWork,
}

/// One connection, counted until the last clone of this goes.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    id: u64,
    shared: Arc<Shared>,
    inner: Arc<Inner>,
}

impl Connection {
    /// It has a request, and is not closed to make room.
    pub(super) fn works(&self) {
        self.set(State::WORKS);
    }

    /// It waits for its client.
    pub(super) fn waits(&self, wait: Wait) {
        self.set(State::waits(self.0.inner.next_turn(), wait));
    }

    /// One that is being closed stays so.
    fn set(&self, state: State) {
        let change = |now| (State(now) != State::CLOSES).then_some(state.0);
        let _ = self.0.shared.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    /// Returns once it is to be closed.
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

/// How many connections there may be: `asked`, or fewer where the process may not open as many files beside `database`
/// connections. The soft limit is raised as far as the hard one allows (setrlimit(2)).
pub(super) fn most(asked: u32, database: u32) -> usize {
    let other = OTHER_FILES + u64::from(database) * 2;
    let wanted = u64::from(asked) + other;
    let limit = getrlimit(Resource::Nofile);
    let allowed = match limit.current {
        Some(soft) if soft < wanted => {
            let raised = limit.maximum.map_or(wanted, |hard| hard.min(wanted));
            let limit = Rlimit { current: Some(raised), maximum: limit.maximum };
            if setrlimit(Resource::Nofile, limit).is_ok() { raised } else { soft }
        }
        _ => wanted,
    };
    let most = allowed.saturating_sub(other).clamp(1, u64::from(asked));
    if most < u64::from(asked) {
        tracing::warn!(
            connections = most,
            files = allowed,
            "MAX_CONNECTIONS is {asked}, but the process may open no more files: raise its limit (ulimit -n)"
        );
    }
    usize::try_from(most).unwrap_or(usize::MAX)
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
    fn the_one_that_has_waited_longest_makes_room() {
        let connections = Connections::new(3);
        let [first, second, third] = three(&connections);
        first.works();
        second.waits(Wait::Body);
        assert!(ready(connections.open()).is_none(), "there is room once one has gone");
        assert!(is_closed(&third), "it has waited longest");
        third.waits(Wait::Head);
        assert!(ready(connections.open()).is_none());
        assert!(!is_closed(&second), "one at a time");
        drop(third);
        let fourth = ready(connections.open()).unwrap().unwrap();
        first.waits(Wait::Head);
        assert!(ready(connections.open()).is_none());
        assert!(is_closed(&second));
        drop(second);
        let fifth = ready(connections.open()).unwrap().unwrap();
        for connection in [&first, &fourth, &fifth] {
            connection.works();
        }
        assert!(ready(connections.open()).unwrap().is_none(), "all are at work");
    }

    #[test]
    fn a_stop_closes_those_without_a_request_alone() {
        let connections = Connections::new(3);
        let [head, body, work] = three(&connections);
        body.waits(Wait::Body);
        work.works();
        connections.close_without_request();
        assert_eq!([&head, &body, &work].map(is_closed), [true, false, false]);
    }
}
