//! The open connections: how many there may be, and which one is closed to make room for a new one.
//!
//! A connection either waits for its client, who has not sent a whole head or body yet, or is at work. When there are as many
//! as there may be, the one that has waited longest is closed: clients who hold connections and send nothing do not keep
//! others out. nginx makes room in the same way (`ngx_drain_connections` in src/core/ngx_connection.c).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{BTreeMap, HashMap};
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

/// All connections of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    state: Mutex<State>,
    /// One has gone.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Each until it has gone, also while it is being closed: it holds a file until then.
    open: HashMap<u64, Open>,
    /// Those that wait, in the order in which they began to.
    waiting: BTreeMap<u64, (u64, Wait)>,
    /// How many are being closed.
    closing: usize,
    next: u64,
    noticed: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    close: Arc<Notify>,
    closing: bool,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn close(&mut self, place: u64) {
        if let Some((id, _)) = self.waiting.remove(&place)
            && let Some(open) = self.open.get_mut(&id)
        {
            open.closing = true;
            open.close.notify_one();
            self.closing += 1;
        }
    }

    fn notice(&mut self, most: usize) {
        if self.noticed.is_none_or(|at| at.elapsed() >= NOTICE_PAUSE) {
            self.noticed = Some(Instant::now());
            tracing::warn!(
                connections = most,
                "there are as many connections as there may be: those that have sent nothing for longest are closed; see MAX_CONNECTIONS"
            );
        }
    }
}

impl Connections {
    /// Room for `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, state: Mutex::default(), freed: Notify::new() }))
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
        let mut state = self.0.lock();
        if state.open.len() >= self.0.most {
            state.notice(self.0.most);
            if state.closing == 0 {
                let place = *state.waiting.first_key_value().ok_or(NoRoom::AllAtWork)?.0;
                state.close(place);
            }
            return Err(NoRoom::Yet);
        }
        let (id, place, close) = (state.number(), state.number(), Arc::new(Notify::new()));
        state.open.insert(id, Open { close: Arc::clone(&close), closing: false });
        state.waiting.insert(place, (id, Wait::Head));
        let inner = Arc::clone(&self.0);
        Ok(Connection(Arc::new(Counted { id, place: Mutex::new(Some(place)), close, inner })))
    }

    /// Closes those that wait for a head or for the rest of one.
    pub(super) fn close_without_request(&self) {
        let mut state = self.0.lock();
        let places: Vec<u64> =
            state.waiting.iter().filter(|(_, (_, wait))| *wait == Wait::Head).map(|(place, _)| *place).collect();
        for place in places {
            state.close(place);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Its place among those that wait; none while it is at work.
    place: Mutex<Option<u64>>,
    close: Arc<Notify>,
    inner: Arc<Inner>,
}

impl Connection {
    /// It has a request, and is not closed to make room.
    pub(super) fn works(&self) {
        if let Some(place) = self.place().take() {
            self.0.inner.lock().waiting.remove(&place);
        }
    }

    /// It waits for its client.
    pub(super) fn waits(&self, wait: Wait) {
        let mut place = self.place();
        let mut state = self.0.inner.lock();
        if let Some(before) = place.take() {
            state.waiting.remove(&before);
        }
        // One that is being closed has no place any more.
        if state.open.get(&self.0.id).is_some_and(|open| !open.closing) {
            let new = state.number();
            state.waiting.insert(new, (self.0.id, wait));
            *place = Some(new);
        }
    }

    /// Returns once it is to be closed.
    pub(super) async fn closed(&self) {
        self.0.close.notified().await;
    }

    fn place(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = self.inner.lock();
        if state.open.remove(&self.id).is_some_and(|open| open.closing) {
            state.closing -= 1;
        }
        if let Some(place) = place {
            state.waiting.remove(&place);
        }
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
