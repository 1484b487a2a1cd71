//! Tenants' data: the tenant's transaction, which is the only way from a handler to it, and the look-up of callers.
//!
//! [`Tenancy`] keeps the pool to itself. A [`TenantTransaction`] belongs to one tenant: every query it builds names the
//! tenant, PostgreSQL shows it that tenant's rows alone, and it ends with an entry in the tenant's audit log. A query
//! without a tenant cannot be run.

mod audit_trail;
mod caller;
mod callers;
mod cursor;
mod idempotency;
mod isolation;
pub(crate) mod last_admin;
mod proofs;
mod query;
mod readers;
mod table;
mod transaction;

pub use audit_trail::{Entries, Trail};
pub use caller::ResolvedCaller;
pub use cursor::Cursor;
pub use idempotency::IdempotencyKey;
pub use isolation::{Isolation, Opening, audit_guard_faults, openings};
pub use last_admin::Loss;
pub use query::TenantQuery;
pub use table::{IdOf, Table, TenantScoped};
pub use transaction::TenantTransaction;

use crate::audit::{EventDraft, Recorder, Refusals};
use crate::database::{Access, Pool};
use crate::error::{ApiError, ErrorCode};
use crate::ids::TenantId;
use caller::Subject;
use callers::Callers;
use idempotency::KeysAtWork;
use readers::Readers;
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use transaction::Held;
use uuid::Uuid;

/// How often a change is done with others: the second time, theirs can fail alone.
const TIMES_WITH_OTHERS: u32 = 2;

/// Whether nothing was done, since other transactions or changes were in the way.
fn is_held_up<R>(outcome: &Result<R, ApiError>) -> bool {
    outcome.as_ref().is_err_and(|error| error.code == ErrorCode::Overloaded)
}

/// Runs tenants' transactions on the pool. One for the process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenancy {
    callers: Callers,
    /// One tenant's take half of the pool's connections at most, however many there are: what others ask for finds one.
    readers: Readers,
    recorder: Recorder,
    refusals: Arc<Refusals>,
    keys_at_work: KeysAtWork,
    /// The faults of the database's isolation that are in the log already.
    faults: Arc<Mutex<Vec<String>>>,
}

impl Tenancy {
    /// How many entries and changes wait for the audit log or are being written, and how many may.
    pub(crate) fn queued(&self) -> (usize, usize) {
        self.recorder.queued()
    }

    /// On this pool. Needs a runtime, for the audit log's recorder.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        let recorder = Recorder::new(pool.clone());
        let refusals = Refusals::start(recorder.clone());
        let readers = Readers::new(pool.clone(), pool.max_connections() / 2);
        let callers = Callers::new(pool);
        Self { callers, readers, recorder, refusals, keys_at_work: KeysAtWork::default(), faults: Arc::default() }
    }

    /// Runs `work`, which only reads, in a transaction of the event's tenant, one read after another. What it comes to, an
    /// error of the caller (4xx) included, is returned once it is recorded in the audit log; any other error is not recorded.
    /// `work` may add to the event.
    pub async fn read<R>(
        &self,
        event: EventDraft,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        let reading = self.readers.begin(event.tenant_id()).await?;
        let mut transaction = TenantTransaction::new(Held::Reading(reading), event);
        let outcome = work(&mut transaction).await;
        transaction.end(outcome, &self.recorder).await
    }

    /// Runs `work` in a transaction of the event's tenant, which other changes of the tenant may share. A change is committed
    /// together with its entry in the audit log; what turns out to change nothing, and an error of the caller (4xx), is
    /// undone and recorded; any other error is undone. `work` may add to the event. It is done again where another change
    /// failed and took this one with it; and in a transaction of its own, where another transaction held it up.
    pub async fn change<R>(
        &self,
        event: EventDraft,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError> + Clone,
    ) -> Result<R, ApiError> {
        let tenant = event.tenant_id();
        for _ in 0..TIMES_WITH_OTHERS {
            let turn = self.recorder.turn(tenant).await?;
            let mut transaction = TenantTransaction::new(Held::Shared(turn), event.clone());
            let outcome = work.clone()(&mut transaction).await;
            if is_held_up(&outcome) {
                break;
            }
            let outcome = transaction.end(outcome, &self.recorder).await;
            if !is_held_up(&outcome) {
                return outcome;
            }
        }
        let alone = self.recorder.alone(tenant).await?;
        let mut transaction = TenantTransaction::new(Held::Alone(alone), event);
        let outcome = work(&mut transaction).await;
        transaction.end(outcome, &self.recorder).await
    }

    /// As [`Tenancy::change`], where `work` makes this row, unless a request with the same key has made one: then `again` reads
    /// that one, and the event becomes a read. It is asked only for what is committed, in a transaction of its own.
    ///
    /// # Errors
    /// `KeyAtWork` while the first request with this key has not ended, `KeyOfAnother` where it had another body.
    pub async fn change_once<R>(
        &self,
        event: EventDraft,
        key: &IdempotencyKey,
        row: Uuid,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError> + Clone,
        again: impl AsyncFnOnce(&mut TenantTransaction, Uuid) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        let _at_work = self.keys_at_work.begin(event.tenant_id(), key)?;
        let is_taken = AtomicBool::new(false);
        let outcome = self.change(event.clone(), async |tx| {
            if tx.claim(key, row).await? {
                return work.clone()(tx).await;
            }
            is_taken.store(true, Ordering::Relaxed);
            // Nothing is kept of this attempt, nor recorded.
            Err(ErrorCode::Internal.into())
        });
        let outcome = outcome.await;
        if !is_taken.load(Ordering::Relaxed) {
            return outcome;
        }
        self.read(event, async |tx| {
            tx.event().turn_into_read();
            let row = tx.claimed(key).await?;
            again(tx, row).await
        })
        .await
    }

    /// Records an event that has no transaction of its own; returns once it is committed.
    pub async fn record(&self, event: EventDraft) -> Result<(), ApiError> {
        self.recorder.record(event).await
    }

    /// Records a refusal; returns once it is committed, or counted where an equal one was recorded within a minute.
    pub async fn record_refusal(&self, event: EventDraft) -> Result<(), ApiError> {
        self.refusals.record(event).await
    }

    /// Records the refusals that are counted and not recorded yet: for the end of the process.
    pub async fn flush(&self) {
        self.refusals.flush().await;
    }

    /// The tenants whose logs have been written to since this was last asked.
    pub(crate) fn take_written(&self) -> HashSet<TenantId> {
        self.recorder.take_written()
    }

    /// The tenant that a token names, and its user of this subject if it has one, as they are after this is called; one round
    /// trip.
    pub async fn resolve_caller(&self, external_id: &str, subject: &str) -> Result<Option<ResolvedCaller>, ApiError> {
        let subject = Subject { external_id: external_id.to_owned(), subject: subject.to_owned() };
        self.callers.find(subject).await
    }

    /// Who keeps tenants apart, as seen on this connection. Faults are logged when they are first seen, however often
    /// this is asked.
    pub async fn isolation(&self, connection: &DatabaseConnection) -> Result<Isolation, DbErr> {
        let isolation = Isolation::look(connection, Access::Read).await?;
        let faults = if let Isolation::NotEnforced(faults) = &isolation { faults.as_slice() } else { &[] };
        let mut seen = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != faults {
            for fault in faults {
                tracing::error!(%fault, "the database does not keep tenants apart");
            }
            *seen = faults.to_vec();
        }
        drop(seen);
        Ok(isolation)
    }
}
