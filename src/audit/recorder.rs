//! Records reads and refusals: those that arrive together share a transaction, and each waits until its entry is on disk.

use super::chain::{NewEntry, record};
use super::event::EventDraft;
use crate::database::{Pool, Trouble};
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many entries wait at most. Senders wait while the queue is full.
const QUEUE: usize = 1024;

/// How many entries one transaction writes at most.
const BATCH: usize = 256;

/// How many transactions write at once. Each takes a connection.
const WRITES_AT_ONCE: usize = 4;

/// How long a transaction of several chains waits for the end of one that another transaction holds. A chain that keeps it
/// longer is written by itself, so that it holds up no other tenant.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_millis(50);

/// How long a transaction of one chain waits; the statement's own timeout may be shorter.
const PATIENCE_ALONE: Duration = Duration::from_mins(1);

/// An entry that waits to be written.
struct PendingEntry {
    entry: NewEntry,
    done: oneshot::Sender<Result<(), ApiError>>,
}

/// Records events that have no transaction of their own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<PendingEntry>);

impl std::fmt::Debug for PendingEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingEntry").field("tenant_id", &self.entry.tenant_id).finish_non_exhaustive()
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
        let sent = self.0.send(PendingEntry { entry: event.into(), done }).await;
        let gone = || ApiError::detailed(ErrorCode::Internal, "the audit log's recorder has ended");
        sent.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Entries that arrive while others are written form the next transaction, whatever tenants they belong to. Each chain is in
/// one transaction at a time.
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
            Some(ended) = writes.next() => chains.ended(ended),
            else => break,
        }
        while writes.len() < WRITES_AT_ONCE {
            let Some(batch) = chains.next() else { break };
            writes.push(write(&pool, batch));
        }
    }
}

/// Entries that wait to be written, by chain.
#[derive(Default)]
struct WriteQueue {
    pending: HashMap<TenantId, Vec<PendingEntry>>,
    /// Chains with entries and without a transaction, in the order in which they came.
    ready: VecDeque<TenantId>,
    /// Chains with a transaction.
    writing: HashSet<TenantId>,
    /// Chains that a transaction of several could not write.
    alone: HashSet<TenantId>,
    /// How many entries wait.
    waiting: usize,
}

/// How a transaction has ended: its chains, and the entries that are to be written chain by chain.
struct Ended {
    chains: HashSet<TenantId>,
    left: Vec<PendingEntry>,
}

impl WriteQueue {
    fn add(&mut self, entry: PendingEntry) {
        let tenant = entry.entry.tenant_id;
        let pending = self.pending.entry(tenant).or_default();
        if pending.is_empty() && !self.writing.contains(&tenant) {
            self.ready.push_back(tenant);
        }
        pending.push(entry);
        self.waiting += 1;
    }

    /// The next transaction's entries: those of the chains that have waited longest.
    fn next(&mut self) -> Option<Vec<PendingEntry>> {
        let mut batch = Vec::new();
        while let Some(tenant) = self.ready.front().copied() {
            let alone = self.alone.contains(&tenant);
            if alone && !batch.is_empty() {
                break;
            }
            self.ready.pop_front();
            let mut chain = self.pending.remove(&tenant).unwrap_or_default();
            let room = BATCH - batch.len();
            if chain.len() > room {
                self.pending.insert(tenant, chain.split_off(room));
            }
            self.writing.insert(tenant);
            batch.extend(chain);
            if alone || batch.len() == BATCH {
                self.alone.remove(&tenant);
                break;
            }
        }
        self.waiting -= batch.len();
        (!batch.is_empty()).then_some(batch)
    }

    fn ended(&mut self, Ended { chains, left }: Ended) {
        self.waiting += left.len();
        let mut returned: HashMap<TenantId, Vec<PendingEntry>> = HashMap::new();
        for entry in left {
            returned.entry(entry.entry.tenant_id).or_default().push(entry);
        }
        for (tenant, mut chain) in returned {
            self.alone.insert(tenant);
            chain.extend(self.pending.remove(&tenant).unwrap_or_default());
            self.pending.insert(tenant, chain);
        }
        for tenant in chains {
            self.writing.remove(&tenant);
            if self.pending.contains_key(&tenant) {
                self.ready.push_back(tenant);
            }
        }
    }
}

async fn write(pool: &Pool, batch: Vec<PendingEntry>) -> Ended {
    let (entries, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|entry| (entry.entry, entry.done)).unzip();
    let chains: HashSet<TenantId> = entries.iter().map(|entry| entry.tenant_id).collect();
    let patience = if chains.len() == 1 { PATIENCE_ALONE } else { PATIENCE_WITH_OTHERS };
    let outcome = record(pool, &entries, patience).await;
    // A chain that cannot be written fails alone. Where the database is away, all of them would.
    if let Err(error) = &outcome
        && chains.len() > 1
        && Trouble::of(error) != Some(Trouble::Unreachable)
    {
        let left = entries.into_iter().zip(waiting).map(|(entry, done)| PendingEntry { entry, done }).collect();
        return Ended { chains, left };
    }
    let outcome = outcome.map_err(ApiError::from);
    for done in waiting {
        // Fails where the caller has gone; the event is recorded all the same.
        let _ = done.send(outcome.clone());
    }
    Ended { chains, left: Vec::new() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::audit::Action;
    use uuid::Uuid;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    fn pending(number: u128) -> PendingEntry {
        let event = EventDraft::new(tenant(number), Action::DataAccess, "documents");
        PendingEntry { entry: event.into(), done: oneshot::channel().0 }
    }

    /// Adds an entry for each of these tenants.
    fn add(queue: &mut WriteQueue, tenants: &[u128]) {
        for number in tenants {
            queue.add(pending(*number));
        }
    }

    fn tenants(batch: &[PendingEntry]) -> Vec<TenantId> {
        batch.iter().map(|pending| pending.entry.tenant_id).collect()
    }

    #[test]
    fn chains_share_a_transaction_and_each_is_in_one() {
        let mut queue = WriteQueue::default();
        add(&mut queue, &[1, 2, 1]);
        let first = queue.next().unwrap();
        assert_eq!(tenants(&first), [tenant(1), tenant(1), tenant(2)]);
        add(&mut queue, &[2, 3]);
        assert_eq!(tenants(&queue.next().unwrap()), [tenant(3)], "the chain of 2 is being written");
        assert!(queue.next().is_none());
        let chains = [tenant(1), tenant(2)].into();
        queue.ended(Ended { chains, left: Vec::new() });
        assert_eq!(tenants(&queue.next().unwrap()), [tenant(2)]);
        assert_eq!(queue.waiting, 0);
    }

    #[test]
    fn a_transaction_has_a_bound() {
        let mut queue = WriteQueue::default();
        add(&mut queue, &[1; BATCH + 10]);
        add(&mut queue, &[2]);
        assert_eq!(queue.next().unwrap().len(), BATCH);
        assert_eq!(tenants(&queue.next().unwrap()), [tenant(2)]);
        queue.ended(Ended { chains: [tenant(1)].into(), left: Vec::new() });
        assert_eq!(queue.next().unwrap().len(), 10);
    }

    #[test]
    fn chains_that_failed_together_are_written_alone() {
        let mut queue = WriteQueue::default();
        add(&mut queue, &[1, 2, 1]);
        let left = queue.next().unwrap();
        add(&mut queue, &[1]);
        queue.ended(Ended { chains: [tenant(1), tenant(2)].into(), left });
        assert_eq!(queue.waiting, 4);
        let mut batches = [tenants(&queue.next().unwrap()), tenants(&queue.next().unwrap())];
        batches.sort();
        assert_eq!(batches, [vec![tenant(1); 3], vec![tenant(2)]]);
        assert!(queue.next().is_none());
        // The next time they may be together again.
        queue.ended(Ended { chains: [tenant(1), tenant(2)].into(), left: Vec::new() });
        add(&mut queue, &[1, 2]);
        assert_eq!(queue.next().unwrap().len(), 2);
    }
}
