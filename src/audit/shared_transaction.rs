//! Changes of one tenant that arrive together share a transaction and its commit: each has its turn in it.
//!
//! Else each would hold the end of the tenant's chain until its own commit is on disk, while the others wait for that within
//! PostgreSQL, with a connection each. A change that fails and has left something to undo takes the others with it: they are done
//! again, and for a while each of the tenant's changes has a savepoint, to which it is undone alone. One that meets another
//! transaction's lock gives up soon, and is to be tried again in a transaction of its own.

use super::chain::append_to;
use super::turn::Turn;
use super::write_queue::{PendingChange, PendingEntry, WriteQueue};
use crate::database::{Access, Pool, Transaction, Trouble};
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use sea_orm::{ConnectionTrait, DbErr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many changes share a transaction at most. PostgreSQL keeps 64 savepoints of a transaction where others look them up
/// fast (postgresql.org/docs/current/subxacts.html).
const CHANGES: usize = 32;

/// A transaction takes no further change once it is so old. Where the database is a network away, a change takes some
/// milliseconds, and several must fit.
const AGE: Duration = Duration::from_millis(50);

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
    let mut own = Entries::default();
    let (written, others) = match changes(queue, tenant, transaction, &mut own).await {
        Ok(Outcome::Nothing) => return own.of_undone,
        Ok(Outcome::Undone) => {
            lock(queue).be_careful(tenant);
            for pending in own.of_kept {
                let _ = pending.done.send(Err(ErrorCode::Overloaded.into()));
            }
            return own.of_undone;
        }
        Ok(Outcome::Kept(transaction)) => {
            let others = lock(queue).take_entries(tenant);
            let written = own.of_kept.iter().chain(&own.of_undone).chain(&others);
            pool.metrics().current_trace().link(written.map(|pending| &pending.trace));
            (write(&transaction, &own, &others).await, others)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    // Where the database is away, they may be committed, and would fail again.
    let may_try_again = written.as_ref().is_err_and(|error| Trouble::of(error) != Some(Trouble::Unreachable));
    let (told, left) = if may_try_again { (Vec::new(), others) } else { (others, Vec::new()) };
    let outcome = written.map_err(ApiError::from);
    for pending in own.of_kept.into_iter().chain(own.of_undone).chain(told) {
        // Fails where the caller has gone; what is committed stays.
        let _ = pending.done.send(outcome.clone());
    }
    left
}

/// Entries of the changes that have had their turn.
#[derive(Default)]
struct Entries {
    /// Those that say that something was changed.
    of_kept: Vec<PendingEntry>,
    /// Those of changes that were undone, or changed nothing.
    of_undone: Vec<PendingEntry>,
}

/// What changes have left of their transaction.
enum Outcome {
    /// Nothing to commit.
    Nothing,
    /// Nothing, since a change that failed took the others with it.
    Undone,
    /// Something to commit.
    Kept(Arc<Transaction>),
}

/// Hands the transaction to one change after the other, and leaves their entries in `entries`.
async fn changes(
    queue: &Mutex<WriteQueue>,
    tenant: TenantId,
    transaction: Transaction,
    entries: &mut Entries,
) -> Result<Outcome, DbErr> {
    let transaction = Arc::new(transaction);
    let begun = Instant::now();
    let careful = lock(queue).is_careful(tenant);
    let (mut kept, mut savepoint) = (false, Savepoint::None);
    for _ in 0..CHANGES {
        // Those that changed nothing wait for its end, too.
        let awaited = kept || !entries.of_undone.is_empty();
        if awaited && begun.elapsed() > AGE {
            break;
        }
        let Some(PendingChange { turn, place }) = lock(queue).take_change(tenant) else { break };
        if kept && careful {
            savepoint.renew(&transaction).await?;
        }
        transaction.begin_part();
        let (its_turn, end) = Turn::new(Arc::clone(&transaction));
        // Where the caller has gone, its turn ends here.
        let _ = turn.send(Ok(its_turn));
        let Ok(end) = end.await else { return Err(DbErr::Custom("a turn has not ended".to_owned())) };
        let entry = end.entry.map(|(entry, done, trace)| PendingEntry { entry, done, trace, _place: place });
        if end.keep {
            entries.of_kept.extend(entry);
            kept = true;
            savepoint.is_behind();
            continue;
        }
        entries.of_undone.extend(entry);
        if transaction.is_unchanged_in_part() {
            continue;
        }
        if !kept {
            // Rolls back.
            return Ok(Outcome::Nothing);
        }
        if !careful {
            return Ok(Outcome::Undone);
        }
        transaction.execute_unprepared("ROLLBACK TO SAVEPOINT change").await?;
    }
    Ok(if kept { Outcome::Kept(transaction) } else { Outcome::Nothing })
}

async fn write(transaction: &Transaction, own: &Entries, others: &[PendingEntry]) -> Result<(), DbErr> {
    let entries = own.of_kept.iter().chain(&own.of_undone).chain(others);
    append_to(transaction, entries.map(|pending| pending.entry.clone()).collect()).await?;
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
