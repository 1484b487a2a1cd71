//! Writes the audit log: reads and refusals that arrive together share a transaction, and so do changes. Each waits until its
//! entry is on disk.

use super::chain::{PATIENCE_ALONE, record};
use super::event::EventDraft;
use super::shared_transaction::{lock, take_turns};
use super::turn::{self, Turn};
use super::write_queue::{Job, PendingChange, PendingEntry, WriteQueue};
use crate::database::{Access, Pool, Transaction, Trouble};
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use crate::tenant_limit::TenantLimit;
use sea_orm::{ConnectionTrait, DbBackend};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many entries and changes wait at most. Further ones wait for a place.
const PLACES: usize = 1024;

/// How many transactions record at once, and as many make changes. Each takes a connection.
const WRITES_AT_ONCE: usize = 4;

/// How many changes have a transaction of their own at once, one of each tenant at most: those that met another one's lock.
const ALONE_AT_ONCE: usize = 2;

/// How long a transaction of several chains waits for the end of one that another transaction holds. A chain that keeps it
/// longer is written by itself, so that it holds up no other tenant.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_millis(50);

/// The name of the span of a transaction, which links the requests whose entries it writes.
const SPAN: &str = "audit batch";

/// Writes events to the audit log, and lets changes take turns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<State>);

struct State {
    pool: Pool,
    queue: Mutex<WriteQueue>,
    places: Arc<Semaphore>,
    alone: TenantLimit,
    alone_at_once: Arc<Semaphore>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Writes through this pool.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        // A file of SQLite takes one transaction that writes at a time.
        let at_once = if pool.get_database_backend() == DbBackend::Postgres { WRITES_AT_ONCE } else { 1 };
        Self(Arc::new(State {
            pool,
            queue: Mutex::new(WriteQueue::new(at_once)),
            places: Arc::new(Semaphore::new(PLACES)),
            alone: TenantLimit::new(1),
            alone_at_once: Arc::new(Semaphore::new(ALONE_AT_ONCE)),
        }))
    }

    /// The tenants whose chains have been written to since this was last asked.
    pub(crate) fn take_written(&self) -> HashSet<TenantId> {
        self.queue().take_written()
    }

    /// How many entries and changes wait or are being written, and how many may.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (PLACES - self.0.places.available_permits(), PLACES)
    }

    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        lock(&self.0.queue)
    }

    /// Returns once the event is committed to its tenant's chain. Needs a runtime.
    pub async fn record(&self, event: EventDraft) -> Result<(), ApiError> {
        let metrics = self.0.pool.metrics();
        let (timer, trace) = (metrics.append(), metrics.current_trace());
        let place = place(&self.0.places).await?;
        let (done, outcome) = oneshot::channel();
        self.queue().add_entry(PendingEntry { entry: event.into(), done, trace, _place: place });
        self.write();
        let outcome = outcome.await.unwrap_or_else(|_| Err(turn::gone()));
        timer.end();
        outcome
    }

    /// A change's turn in a transaction of this tenant, which has no connection while it waits for it. Needs a runtime.
    pub async fn turn(&self, tenant: TenantId) -> Result<Turn, ApiError> {
        let place = place(&self.0.places).await?;
        let (turn, mine) = oneshot::channel();
        self.queue().add_change(tenant, PendingChange { turn, place });
        self.write();
        mine.await.unwrap_or_else(|_| Err(turn::gone()))
    }

    /// A transaction of its own, for a change that met another one's lock, and its places, which it holds until it ends.
    pub async fn alone(&self, tenant: TenantId) -> Result<(Transaction, [OwnedSemaphorePermit; 2]), ApiError> {
        let of_tenant = self.0.alone.place(tenant).await.ok_or_else(turn::gone)?;
        let places = [of_tenant, place(&self.0.alone_at_once).await?];
        let transaction = self.0.pool.begin(tenant, Access::Write).await.map_err(ApiError::of_begin)?;
        Ok((transaction, places))
    }

    /// Begins the transactions that there may be.
    fn write(&self) {
        while let Some(job) = { self.queue().next() } {
            let recorder = self.clone();
            match job {
                Job::Record(batch) => drop(tokio::spawn(recorder.write_entries(batch))),
                Job::Change(tenant) => drop(tokio::spawn(recorder.make_changes(tenant))),
            }
        }
    }

    async fn write_entries(self, batch: Vec<PendingEntry>) {
        let chains = batch.iter().map(|pending| pending.entry.tenant_id).collect();
        let mut writing = Writing { recorder: &self, what: What::Entries(chains), left: Vec::new() };
        let trace = self.0.pool.metrics().trace_work(SPAN);
        trace.link(batch.iter().map(|pending| &pending.trace));
        writing.left = trace.run(write_batch(&self.0.pool, batch)).await;
    }

    async fn make_changes(self, tenant: TenantId) {
        let mut writing = Writing { recorder: &self, what: What::Changes(tenant), left: Vec::new() };
        let trace = self.0.pool.metrics().trace_work(SPAN);
        writing.left = trace.run(take_turns(&self.0.pool, &self.0.queue, tenant)).await;
    }
}

async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    // Nobody closes it.
    Arc::clone(places).acquire_owned().await.map_err(|_| ErrorCode::Overloaded.into())
}

/// A transaction of the queue. When it is dropped, whatever has happened, its chains may have the next one.
struct Writing<'r> {
    recorder: &'r Recorder,
    what: What,
    /// Entries that are still to be written.
    left: Vec<PendingEntry>,
}

enum What {
    Entries(HashSet<TenantId>),
    Changes(TenantId),
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.left);
        match &self.what {
            What::Entries(chains) => self.recorder.queue().recorded(chains, left),
            What::Changes(tenant) => self.recorder.queue().changed(*tenant, left),
        }
        self.recorder.write();
    }
}

/// Writes entries, of one chain or several. Returns those that are to be written chain by chain.
async fn write_batch(pool: &Pool, batch: Vec<PendingEntry>) -> Vec<PendingEntry> {
    let several = batch.windows(2).any(|pair| pair[0].entry.tenant_id != pair[1].entry.tenant_id);
    let patience = if several { PATIENCE_WITH_OTHERS } else { PATIENCE_ALONE };
    let entries: Vec<_> = batch.iter().map(|pending| pending.entry.clone()).collect();
    let outcome = record(pool, &entries, patience).await;
    // A chain that cannot be written fails alone. Where the database is away, all of them would.
    if let Err(error) = &outcome
        && several
        && Trouble::of(error) != Some(Trouble::Unreachable)
    {
        return batch;
    }
    let outcome = outcome.map_err(ApiError::from);
    for pending in batch {
        // Fails where the caller has gone; the event is recorded all the same.
        let _ = pending.done.send(outcome.clone());
    }
    Vec::new()
}
