//! Tenants' data: the tenant's transaction, which is the only way from a handler to it, and the look-up of callers.
//!
//! [`Tenancy`] keeps the pool to itself. A [`TenantTransaction`] belongs to one tenant: every query it builds names the
//! tenant, PostgreSQL shows it that tenant's rows alone, and it ends with an entry in the tenant's audit log. A query
//! without a tenant cannot be run.

mod audit_trail;
mod caller;
mod cursor;
mod isolation;
pub(crate) mod last_admin;
mod query;
mod table;
mod transaction;

pub use audit_trail::{Entries, Trail};
pub use caller::ResolvedCaller;
pub use cursor::Cursor;
pub use isolation::Isolation;
pub use last_admin::Loss;
pub use query::TenantQuery;
pub use table::{IdOf, Table, TenantScoped};
pub use transaction::TenantTransaction;

use crate::audit::{EventDraft, Recorder, Refusals};
use crate::database::{self, Access, Pool};
use crate::error::{ApiError, ErrorCode};
use sea_orm::{DatabaseConnection, DbErr};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs tenants' transactions on the pool. One for the process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenancy {
    pool: Pool,
    recorder: Recorder,
    refusals: Arc<Refusals>,
    /// The faults of the database's isolation that are in the log already.
    faults: Arc<Mutex<Vec<String>>>,
}

impl Tenancy {
    /// On this pool. Needs a runtime, for the audit log's recorder.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        let recorder = Recorder::start(pool.clone());
        let refusals = Refusals::start(recorder.clone());
        Self { pool, recorder, refusals, faults: Arc::default() }
    }

    /// Runs `work` in a transaction of the event's tenant, and keeps what its outcome deserves: a change together with its
    /// entry in the audit log; a read, and an error that tells something of the tenant's data (4xx), once it is recorded;
    /// of any other error nothing. `work` may add to the event.
    pub async fn run<R>(
        &self,
        event: EventDraft,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        let access = if event.is_read() { Access::Read } else { Access::Write };
        let transaction = self.pool.begin(event.tenant_id(), access).await.map_err(set_role_error)?;
        let mut transaction = TenantTransaction::new(transaction, event);
        let outcome = work(&mut transaction).await;
        transaction.end(outcome, &self.recorder).await
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

    /// The tenant that a token names, and its user of this subject if it has one; one round trip.
    pub async fn resolve_caller(&self, external_id: &str, subject: &str) -> Result<Option<ResolvedCaller>, ApiError> {
        ResolvedCaller::find(&self.pool, external_id, subject).await.map_err(set_role_error)
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

/// Maps a failed SET ROLE to SYS_007; there is no fallback role.
fn set_role_error(error: DbErr) -> ApiError {
    if database::may_not_take_role(&error) {
        tracing::error!(%error, "DATABASE_URL: its role may not take on {0}: GRANT {0} TO it", database::APP_ROLE);
        return ApiError::detailed(ErrorCode::NotIsolated, error.to_string());
    }
    error.into()
}
