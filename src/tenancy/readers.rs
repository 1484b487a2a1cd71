//! Transactions that read: a tenant has a few at a time, and one that ends its read is handed on to the tenant's next, which
//! then need not begin its own.
//!
//! A statement sees what was committed before it began, whatever its transaction has read before: sessions are in READ
//! COMMITTED (postgresql.org/docs/current/transaction-iso.html). SQLite's transactions go on seeing what the first of
//! their statements saw, so there each read has its own.

use crate::database::{Access, Pool, Transaction};
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use sea_orm::{ConnectionTrait, DbBackend};
use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How many reads share a transaction at most.
const READS: usize = 32;

/// And while others may wait for a connection: a few, since its next user waits for the end of the transaction, too.
const READS_WHILE_OTHERS_WAIT: usize = 4;

/// A transaction is handed on to no further read once it is so old.
const AGE: Duration = Duration::from_millis(50);

/// The tenants' reads. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    pool: Pool,
    at_once: usize,
    tenants: Arc<Mutex<HashMap<TenantId, Queue>>>,
}

/// One tenant's.
#[derive(Debug, Default)]
struct Queue {
    /// How many places are taken.
    reading: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

impl Readers {
    /// So many of one tenant's at once; one at least.
    pub(super) fn new(pool: Pool, at_once: usize) -> Self {
        Self { pool, at_once: at_once.max(1), tenants: Arc::default() }
    }

    /// A transaction of the tenant's, once it may have one for this read.
    pub(super) async fn begin(&self, tenant: TenantId) -> Result<Reading, ApiError> {
        let mut place = self.place(tenant).await?;
        let mut open = if let Some(open) = place.open.take() {
            open
        } else {
            let transaction = self.pool.begin(tenant, Access::Read).await.map_err(ApiError::of_begin)?;
            Open { transaction: Arc::new(transaction), begun: Instant::now(), reads: 0 }
        };
        open.reads += 1;
        let transaction = Arc::clone(&open.transaction);
        place.open = Some(open);
        Ok(Reading { transaction, _place: place })
    }

    async fn place(&self, tenant: TenantId) -> Result<Place, ApiError> {
        let waiting = {
            let mut tenants = self.tenants();
            let queue = tenants.entry(tenant).or_default();
            if queue.reading < self.at_once {
                queue.reading += 1;
                return Ok(Place { readers: self.clone(), tenant, open: None, taken: true });
            }
            let (place, waiting) = oneshot::channel();
            queue.waiting.push_back(place);
            waiting
        };
        waiting.await.map_err(|_| ApiError::detailed(ErrorCode::Internal, "a read lost its place"))
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Queue>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant's next read that waits for a place. Where there is none, there is a place more.
    fn next(&self, tenant: TenantId) -> Option<oneshot::Sender<Place>> {
        let mut tenants = self.tenants();
        let queue = tenants.get_mut(&tenant)?;
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.reading -= 1;
            if queue.reading == 0 {
                tenants.remove(&tenant);
            }
        }
        next
    }
}

/// A place among the tenant's reads. Dropped, it goes to the next one, with its transaction where that is good for another.
#[derive(Debug)]
struct Place {
    readers: Readers,
    tenant: TenantId,
    open: Option<Open>,
    /// Whether it is still to be given back.
    taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            return;
        }
        let mut open = self.open.take().filter(|open| open.is_good_for_another(&self.readers.pool));
        while let Some(next) = self.readers.next(self.tenant) {
            let place = Self { readers: self.readers.clone(), tenant: self.tenant, open, taken: true };
            // Comes back where nobody waits any more.
            let Err(mut unwanted) = next.send(place) else { return };
            unwanted.taken = false;
            open = unwanted.open.take();
        }
    }
}

/// A transaction in which reads take turns.
#[derive(Debug)]
struct Open {
    transaction: Arc<Transaction>,
    begun: Instant,
    reads: usize,
}

impl Open {
    /// Not after a statement that failed, or that nobody saw the end of.
    fn is_good_for_another(&self, pool: &Pool) -> bool {
        self.transaction.get_database_backend() == DbBackend::Postgres
            && self.transaction.is_unchanged_in_part()
            && self.reads < if pool.has_spare() { READS } else { READS_WHILE_OTHERS_WAIT }
            && self.begun.elapsed() < AGE
    }
}

/// A read's turn in a transaction, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    // Dropped before the place, so that the transaction is rolled back before another takes the place.
    transaction: Arc<Transaction>,
    _place: Place,
}

impl Deref for Reading {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}
