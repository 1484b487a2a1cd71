//! Records reads and refusals: those that arrive together share a transaction, and each waits until its entry is on disk.

use super::chain::append;
use super::event::EventDraft;
use crate::database::{Access, Pool};
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sea_orm::DbErr;
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};

/// How many events wait at most. Senders wait while the queue is full.
const QUEUE: usize = 1024;

/// How many events one transaction writes at most.
const BATCH: usize = 256;

/// How many chains are appended to at once. Each takes a connection.
const CHAINS_AT_ONCE: usize = 4;

/// An event that waits to be written.
struct PendingEntry {
    event: EventDraft,
    done: oneshot::Sender<Result<(), ApiError>>,
}

/// Records events that have no transaction of their own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<PendingEntry>);

impl std::fmt::Debug for PendingEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingEntry").field("tenant_id", &self.event.tenant_id).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts a recorder that writes through this pool for as long as it or a clone of it lives. Needs a runtime.
    #[must_use]
    pub fn start(pool: Pool) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(pool, receiver));
        Self(sender)
    }

    /// Returns once the event is committed to its tenant's chain.
    pub async fn record(&self, event: EventDraft) -> Result<(), ApiError> {
        let (done, outcome) = oneshot::channel();
        let sent = self.0.send(PendingEntry { event, done }).await;
        let gone = || ApiError::detailed(ErrorCode::Internal, "the audit log's recorder has ended");
        sent.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Each chain has one transaction at a time. Events that arrive meanwhile form its next batch, so that a slow chain does not
/// block the others.
async fn run(pool: Pool, mut receiver: mpsc::Receiver<PendingEntry>) {
    let mut chains = WriteQueue::default();
    let mut writes = FuturesUnordered::new();
    let mut arrived = Vec::with_capacity(BATCH);
    let mut open = true;
    loop {
        tokio::select! {
            count = receiver.recv_many(&mut arrived, BATCH), if open && chains.waiting < QUEUE => {
                open = count > 0;
                arrived.drain(..).for_each(|entry| chains.add(entry));
            }
            Some(tenant) = writes.next() => chains.written(tenant),
            else => break,
        }
        while writes.len() < CHAINS_AT_ONCE {
            let Some((tenant, batch)) = chains.next() else { break };
            writes.push(write_all(&pool, tenant, batch));
        }
    }
}

/// Events that wait to be written, by chain.
#[derive(Default)]
struct WriteQueue {
    pending: HashMap<TenantId, Vec<PendingEntry>>,
    /// Chains with events and without a transaction, in the order in which they came.
    ready: VecDeque<TenantId>,
    /// Chains with a transaction.
    writing: HashSet<TenantId>,
    /// How many events wait.
    waiting: usize,
}

impl WriteQueue {
    fn add(&mut self, entry: PendingEntry) {
        let tenant = entry.event.tenant_id;
        let pending = self.pending.entry(tenant).or_default();
        if pending.is_empty() && !self.writing.contains(&tenant) {
            self.ready.push_back(tenant);
        }
        pending.push(entry);
        self.waiting += 1;
    }

    /// The chain that has waited longest, and its next batch.
    fn next(&mut self) -> Option<(TenantId, Vec<PendingEntry>)> {
        let tenant = self.ready.pop_front()?;
        let mut batch = self.pending.remove(&tenant)?;
        if batch.len() > BATCH {
            self.pending.insert(tenant, batch.split_off(BATCH));
        }
        self.waiting -= batch.len();
        self.writing.insert(tenant);
        Some((tenant, batch))
    }

    fn written(&mut self, tenant: TenantId) {
        self.writing.remove(&tenant);
        if self.pending.contains_key(&tenant) {
            self.ready.push_back(tenant);
        }
    }
}

async fn write_all(pool: &Pool, tenant: TenantId, batch: Vec<PendingEntry>) -> TenantId {
    let (events, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|entry| (entry.event, entry.done)).unzip();
    let outcome = write(pool, tenant, events).await.map_err(ApiError::from);
    for done in waiting {
        // Fails where the caller has gone; the event is recorded all the same.
        let _ = done.send(outcome.clone());
    }
    tenant
}

async fn write(pool: &Pool, tenant: TenantId, events: Vec<EventDraft>) -> Result<(), DbErr> {
    let transaction = pool.begin(tenant, Access::Write).await?;
    append(&transaction, events).await?;
    transaction.commit().await
}
