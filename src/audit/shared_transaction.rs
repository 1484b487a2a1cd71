//! Changes of one tenant that arrive together share a transaction and its commit: each has its turn in it.
//!
//! Else each would hold the end of the tenant's chain until its own commit is on disk, while the others wait for that within
//! PostgreSQL, with a connection each. A change that fails is undone to a savepoint and fails alone. One that meets another
//! transaction's lock gives up soon, and is to be tried again in a transaction of its own.

use super::chain::append_to;
use super::turn::Turn;
use super::write_queue::{PendingChange, PendingEntry, WriteQueue};
use crate::database::{Access, Pool, Transaction, Trouble};
use crate::error::ApiError;
use crate::ids::TenantId;
use sea_orm::{ConnectionTrait, DbErr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many changes share a transaction at most. PostgreSQL keeps 64 savepoints of a transaction where others look them up
/// fast (postgresql.org/docs/current/subxacts.html).
const CHANGES: usize = 32;

/// A transaction takes no further change once it is so old.
const AGE: Duration = Duration::from_millis(20);

/// Runs a transaction in which changes of the tenant take turns, and writes their entries and those that wait besides.
/// Returns the entries that are still to be written.
pub(super) async fn take_turns(pool: &Pool, queue: &Mutex<WriteQueue>, tenant: TenantId) -> Vec<PendingEntry> {
    let transaction = match pool.begin(tenant, Access::Share).await {
        Ok(transaction) => transaction,
        Err(error) => {
            let error = ApiError::of_begin(error);
            // Each of them would wait for the same, as long.
            while let Some(change) = lock(queue).take_change(tenant) {
                let _ = change.turn.send(Err(error.clone()));
            }
            return Vec::new();
        }
    };
    let mut own = Vec::new();
    let (written, others) = match changes(queue, tenant, transaction, &mut own).await {
        Ok(None) => return own,
        Ok(Some(transaction)) => {
            let others = lock(queue).take_entries(tenant);
            (write(&transaction, &own, &others).await, others)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    // Where the database is away, they may be committed, and would fail again.
    let may_try_again = written.as_ref().is_err_and(|error| Trouble::of(error) != Some(Trouble::Unreachable));
    let (told, left) = if may_try_again { (Vec::new(), others) } else { (others, Vec::new()) };
    let outcome = written.map_err(ApiError::from);
    for pending in own.into_iter().chain(told) {
        // Fails where the caller has gone; what is committed stays.
        let _ = pending.done.send(outcome.clone());
    }
    left
}

/// Hands the transaction to one change after the other. Returns it, unless there is nothing to commit, and leaves their
/// entries in `entries`.
async fn changes(
    queue: &Mutex<WriteQueue>,
    tenant: TenantId,
    transaction: Transaction,
    entries: &mut Vec<PendingEntry>,
) -> Result<Option<Arc<Transaction>>, DbErr> {
    let transaction = Arc::new(transaction);
    let begun = Instant::now();
    let (mut kept, mut savepoint) = (false, Savepoint::None);
    for _ in 0..CHANGES {
        if kept && begun.elapsed() > AGE {
            break;
        }
        let Some(PendingChange { turn, place }) = lock(queue).take_change(tenant) else { break };
        if kept {
            savepoint.renew(&transaction).await?;
        }
        let (its_turn, end) = Turn::new(Arc::clone(&transaction));
        // Where the caller has gone, its turn ends here.
        let _ = turn.send(Ok(its_turn));
        let Ok(end) = end.await else { return Err(DbErr::Custom("a turn has not ended".to_owned())) };
        entries.extend(end.entry.map(|(entry, done)| PendingEntry { entry, done, _place: place }));
        if end.keep {
            kept = true;
            savepoint.is_behind();
        } else if kept {
            transaction.execute_unprepared("ROLLBACK TO SAVEPOINT change").await?;
        } else {
            // Rolls back.
            return Ok(None);
        }
    }
    Ok(kept.then_some(transaction))
}

async fn write(transaction: &Transaction, own: &[PendingEntry], others: &[PendingEntry]) -> Result<(), DbErr> {
    let entries = own.iter().chain(others).map(|pending| pending.entry.clone()).collect();
    append_to(transaction, entries).await?;
    transaction.commit_shared().await
}

pub(super) fn lock(queue: &Mutex<WriteQueue>) -> MutexGuard<'_, WriteQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a change is undone to.
#[derive(Clone, Copy)]
enum Savepoint {
    None,
    /// Changes have been kept since.
    Behind,
    /// Nothing has.
    Here,
}

impl Savepoint {
    async fn renew(&mut self, transaction: &Transaction) -> Result<(), DbErr> {
        match self {
            Self::None => transaction.execute_unprepared("SAVEPOINT change").await?,
            Self::Behind => transaction.execute_unprepared("RELEASE SAVEPOINT change; SAVEPOINT change").await?,
            Self::Here => return Ok(()),
        };
        *self = Self::Here;
        Ok(())
    }

    fn is_behind(&mut self) {
        if matches!(self, Self::Here) {
            *self = Self::Behind;
        }
    }
}
