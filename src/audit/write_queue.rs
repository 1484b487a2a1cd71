//! What waits to be written, by chain. Entries of a chain are in one transaction at a time, and its changes in two.

use super::chain::NewEntry;
use super::turn::{Done, Turn};
use crate::error::ApiError;
use crate::ids::TenantId;
use crate::traces::Trace;
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// How many entries one transaction writes at most.
pub(super) const BATCH: usize = 256;

/// How many transactions of changes a chain has at once. While one commits, or waits for the network, the other goes on; both
/// write to the chain's end, one after the other.
const CHANGING_AT_ONCE: usize = 2;

/// With more changes than this in its queue, a chain gets its second transaction. Few are done sooner in the one that is open.
const CHANGES_FOR_ANOTHER: usize = 4;

/// After a failure, so many transactions of the tenant have savepoints.
const CAREFUL: u32 = 64;

/// An entry that waits to be written.
pub(super) struct PendingEntry {
    pub(super) entry: NewEntry,
    pub(super) done: Done,
    /// The request that waits for it.
    pub(super) trace: Trace,
    /// Its place in the queue.
    pub(super) _place: OwnedSemaphorePermit,
}

/// A change that waits for its turn in a transaction.
pub(super) struct PendingChange {
    pub(super) turn: oneshot::Sender<Result<Turn, ApiError>>,
    /// Its place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// A transaction to begin.
pub(super) enum Job {
    /// One that records these entries, of one chain or several.
    Record(Vec<PendingEntry>),
    /// One in which the changes of this tenant take turns.
    Change(TenantId),
}

#[derive(Default)]
pub(super) struct WriteQueue {
    chains: HashMap<TenantId, Chain>,
    /// Chains that wait for a transaction, in the order in which they came: those that had entries alone.
    to_record: VecDeque<TenantId>,
    /// Those that had changes.
    to_change: VecDeque<TenantId>,
    /// How many transactions of each kind there are.
    recording: usize,
    changing: usize,
    /// How many there may be.
    at_once: usize,
    /// Tenants of which a change failed lately, and for how many more transactions that counts.
    careful: HashMap<TenantId, u32>,
    /// Tenants whose chains were written to, for whoever makes checkpoints.
    written: HashSet<TenantId>,
}

/// What waits in one chain.
#[derive(Default)]
struct Chain {
    entries: Vec<PendingEntry>,
    changes: VecDeque<PendingChange>,
    /// Whether it waits for a transaction.
    waiting: bool,
    /// Whether it has one that records.
    recording: bool,
    /// How many it has in which changes take turns.
    changing: usize,
    /// Whether a transaction of several chains could not write it.
    alone: bool,
}

impl Chain {
    /// Whether there is work for a transaction of changes besides those that it has.
    fn wants_to_change(&self, at_once: usize) -> bool {
        !self.recording
            && match self.changing {
                0 => !self.changes.is_empty(),
                changing => changing < at_once && self.changes.len() > CHANGES_FOR_ANOTHER,
            }
    }

    fn wants_to_record(&self) -> bool {
        !self.recording && self.changing == 0 && !self.entries.is_empty()
    }
}

impl WriteQueue {
    /// For so many transactions of each kind at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once, ..Self::default() }
    }

    pub(super) fn add_entry(&mut self, entry: PendingEntry) {
        let tenant = entry.entry.tenant_id;
        self.chains.entry(tenant).or_default().entries.push(entry);
        self.wait(tenant);
    }

    pub(super) fn add_change(&mut self, tenant: TenantId, change: PendingChange) {
        self.chains.entry(tenant).or_default().changes.push_back(change);
        self.wait(tenant);
    }

    /// Has a chain wait for a transaction, unless it does so already, has what it needs, or has nothing to write.
    fn wait(&mut self, tenant: TenantId) {
        let Some(chain) = self.chains.get_mut(&tenant).filter(|chain| !chain.waiting) else { return };
        if chain.wants_to_change(self.at_once.min(CHANGING_AT_ONCE)) {
            self.to_change.push_back(tenant);
            chain.waiting = true;
        } else if chain.wants_to_record() {
            self.to_record.push_back(tenant);
            chain.waiting = true;
        } else if !chain.recording && chain.changing == 0 {
            self.chains.remove(&tenant);
        }
    }

    /// The next transaction, where there may be one more: of the chains that have waited longest.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.recording < self.at_once {
            let batch = self.batch();
            if !batch.is_empty() {
                self.recording += 1;
                return Some(Job::Record(batch));
            }
        }
        if self.changing < self.at_once
            && let Some(tenant) = self.to_change.pop_front()
        {
            self.written.insert(tenant);
            let chain = self.chains.entry(tenant).or_default();
            chain.waiting = false;
            chain.changing += 1;
            self.changing += 1;
            self.wait(tenant);
            return Some(Job::Change(tenant));
        }
        None
    }

    fn batch(&mut self) -> Vec<PendingEntry> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(tenant) = self.to_record.front().copied()
        {
            let chain = self.chains.entry(tenant).or_default();
            if chain.alone && !batch.is_empty() {
                break;
            }
            self.to_record.pop_front();
            self.written.insert(tenant);
            if !chain.changes.is_empty() {
                // Changes have come meanwhile; their transaction writes the entries, too.
                self.to_change.push_back(tenant);
                continue;
            }
            (chain.waiting, chain.recording) = (false, true);
            let rest = chain.entries.split_off(chain.entries.len().min(BATCH - batch.len()));
            batch.append(&mut chain.entries);
            chain.entries = rest;
            if std::mem::take(&mut chain.alone) {
                break;
            }
        }
        batch
    }

    /// The tenants whose chains have been written to since this was last asked.
    pub(super) fn take_written(&mut self) -> HashSet<TenantId> {
        std::mem::take(&mut self.written)
    }

    /// The tenant's next change, for a transaction that the tenant has.
    pub(super) fn take_change(&mut self, tenant: TenantId) -> Option<PendingChange> {
        self.chains.get_mut(&tenant)?.changes.pop_front()
    }

    /// Entries of the tenant, for a transaction that the tenant has.
    pub(super) fn take_entries(&mut self, tenant: TenantId) -> Vec<PendingEntry> {
        let Some(chain) = self.chains.get_mut(&tenant) else { return Vec::new() };
        let rest = chain.entries.split_off(chain.entries.len().min(BATCH));
        std::mem::replace(&mut chain.entries, rest)
    }

    /// A transaction that recorded has ended; the entries that it has left are to be written chain by chain.
    pub(super) fn recorded(&mut self, chains: &HashSet<TenantId>, left: Vec<PendingEntry>) {
        self.recording -= 1;
        self.put_back(left);
        for tenant in chains {
            if let Some(chain) = self.chains.get_mut(tenant) {
                chain.recording = false;
            }
            self.wait(*tenant);
        }
    }

    /// A transaction of changes has ended; the entries that it has left are to be written.
    pub(super) fn changed(&mut self, tenant: TenantId, left: Vec<PendingEntry>) {
        self.changing -= 1;
        self.put_back(left);
        if let Some(chain) = self.chains.get_mut(&tenant) {
            chain.changing -= 1;
        }
        self.wait(tenant);
    }

    /// A change of this tenant has failed, and others had to be done again for it.
    pub(super) fn be_careful(&mut self, tenant: TenantId) {
        self.careful.insert(tenant, CAREFUL);
    }

    /// Whether the tenant's next transaction must be able to undo one change alone.
    pub(super) fn is_careful(&mut self, tenant: TenantId) -> bool {
        let Some(left) = self.careful.get_mut(&tenant) else { return false };
        *left -= 1;
        if *left == 0 {
            self.careful.remove(&tenant);
        }
        true
    }

    /// Before those that have come meanwhile.
    fn put_back(&mut self, left: Vec<PendingEntry>) {
        let mut returned: HashMap<TenantId, Vec<PendingEntry>> = HashMap::new();
        for entry in left {
            returned.entry(entry.entry.tenant_id).or_default().push(entry);
        }
        for (tenant, mut entries) in returned {
            let chain = self.chains.entry(tenant).or_default();
            chain.alone = true;
            entries.append(&mut chain.entries);
            chain.entries = entries;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::audit::{Action, EventDraft};
    use std::sync::Arc;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    fn queue() -> WriteQueue {
        WriteQueue::new(4)
    }

    /// Adds an entry for each of these tenants.
    fn add(queue: &mut WriteQueue, tenants: &[u128]) {
        for number in tenants {
            let event = EventDraft::new(tenant(*number), Action::DataAccess, "documents");
            let (entry, done) = (event.into(), oneshot::channel().0);
            queue.add_entry(PendingEntry { entry, done, trace: Trace::default(), _place: place() });
        }
    }

    fn add_change(queue: &mut WriteQueue, number: u128) {
        queue.add_change(tenant(number), PendingChange { turn: oneshot::channel().0, place: place() });
    }

    fn tenants(batch: &[PendingEntry]) -> Vec<TenantId> {
        batch.iter().map(|pending| pending.entry.tenant_id).collect()
    }

    /// The entries of the next transaction, which records.
    fn next_batch(queue: &mut WriteQueue) -> Vec<PendingEntry> {
        match queue.next() {
            Some(Job::Record(batch)) => batch,
            Some(Job::Change(tenant)) => panic!("a change of {tenant}"),
            None => panic!("nothing"),
        }
    }

    #[test]
    fn chains_share_a_transaction_and_each_is_in_one() {
        let mut queue = queue();
        add(&mut queue, &[1, 2, 1]);
        assert_eq!(tenants(&next_batch(&mut queue)), [tenant(1), tenant(1), tenant(2)]);
        add(&mut queue, &[2, 3]);
        assert_eq!(tenants(&next_batch(&mut queue)), [tenant(3)], "the chain of 2 is being written");
        assert!(queue.next().is_none());
        queue.recorded(&[tenant(1), tenant(2)].into(), Vec::new());
        assert_eq!(tenants(&next_batch(&mut queue)), [tenant(2)]);
        queue.recorded(&[tenant(2)].into(), Vec::new());
        queue.recorded(&[tenant(3)].into(), Vec::new());
        assert!(queue.chains.is_empty(), "nothing is kept of a chain that is written");
    }

    #[test]
    fn a_transaction_has_a_bound() {
        let mut queue = queue();
        add(&mut queue, &[1; BATCH + 10]);
        add(&mut queue, &[2]);
        assert_eq!(next_batch(&mut queue).len(), BATCH);
        assert_eq!(tenants(&next_batch(&mut queue)), [tenant(2)]);
        queue.recorded(&[tenant(1)].into(), Vec::new());
        assert_eq!(next_batch(&mut queue).len(), 10);
    }

    #[test]
    fn chains_that_failed_together_are_written_alone() {
        let mut queue = queue();
        add(&mut queue, &[1, 2, 1]);
        let left = next_batch(&mut queue);
        add(&mut queue, &[1]);
        queue.recorded(&[tenant(1), tenant(2)].into(), left);
        let mut batches = [tenants(&next_batch(&mut queue)), tenants(&next_batch(&mut queue))];
        batches.sort();
        assert_eq!(batches, [vec![tenant(1); 3], vec![tenant(2)]]);
        assert!(queue.next().is_none());
        // The next time they may be together again.
        queue.recorded(&[tenant(1)].into(), Vec::new());
        queue.recorded(&[tenant(2)].into(), Vec::new());
        add(&mut queue, &[1, 2]);
        assert_eq!(next_batch(&mut queue).len(), 2);
    }

    #[test]
    fn changes_and_entries_of_a_chain_share_a_transaction() {
        let mut queue = queue();
        add(&mut queue, &[1, 2]);
        add_change(&mut queue, 1);
        assert_eq!(tenants(&next_batch(&mut queue)), [tenant(2)]);
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(1)));
        assert!(queue.next().is_none());
        add_change(&mut queue, 1);
        assert!(queue.take_change(tenant(1)).is_some());
        assert!(queue.take_change(tenant(1)).is_some(), "also one that has come meanwhile");
        assert!(queue.take_change(tenant(1)).is_none());
        assert_eq!(queue.take_entries(tenant(1)).len(), 1);
        add_change(&mut queue, 1);
        assert!(queue.next().is_none());
        queue.changed(tenant(1), Vec::new());
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(1)));
    }

    #[test]
    fn a_chain_with_many_changes_has_two_transactions() {
        let mut queue = queue();
        for _ in 0..=CHANGES_FOR_ANOTHER {
            add_change(&mut queue, 1);
        }
        add_change(&mut queue, 2);
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(1)));
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(2)), "each has one first");
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(1)));
        for _ in 0..100 {
            add_change(&mut queue, 1);
        }
        add(&mut queue, &[1]);
        assert!(queue.next().is_none(), "two at most, and they write its entries");
        queue.changed(tenant(1), Vec::new());
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(1)));
        while queue.take_change(tenant(1)).is_some() {}
        queue.changed(tenant(1), Vec::new());
        assert!(queue.next().is_none(), "one goes on, and writes the entry");
        assert_eq!(queue.take_entries(tenant(1)).len(), 1);
        queue.changed(tenant(1), Vec::new());
        queue.take_change(tenant(2)).unwrap();
        queue.changed(tenant(2), Vec::new());
        assert!(queue.chains.is_empty());
    }

    #[test]
    fn care_ends_after_some_transactions() {
        let mut queue = queue();
        assert!(!queue.is_careful(tenant(1)));
        queue.be_careful(tenant(1));
        assert!(!queue.is_careful(tenant(2)));
        let careful = (0..1000).take_while(|_| queue.is_careful(tenant(1))).count();
        assert_eq!(careful, CAREFUL as usize);
        assert!(queue.careful.is_empty());
    }

    #[test]
    fn transactions_of_a_kind_leave_room_for_the_other() {
        let mut queue = WriteQueue::new(1);
        add_change(&mut queue, 1);
        add_change(&mut queue, 2);
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(1)));
        assert!(queue.next().is_none());
        add(&mut queue, &[3]);
        assert_eq!(tenants(&next_batch(&mut queue)), [tenant(3)]);
        add(&mut queue, &[4]);
        assert!(queue.next().is_none());
        queue.changed(tenant(1), Vec::new());
        assert!(matches!(queue.next(), Some(Job::Change(changed)) if changed == tenant(2)));
    }
}
