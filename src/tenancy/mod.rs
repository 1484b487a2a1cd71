//! Tenants' data: the unit of work, which is the only way from a handler to it, and the directory of tenants.
//!
//! [`Tenancy`] keeps the pool to itself. A [`UnitOfWork`] is one transaction of one tenant: every query it builds names
//! the tenant, PostgreSQL shows it that tenant's rows alone, and it ends with an entry in the tenant's audit log. A query
//! without a tenant has no way to be run.

mod admins;
mod directory;
mod isolation;
mod operate;
mod page;
mod scope;
mod trail;
mod work;

pub use admins::Loss;
pub use directory::{CallerRow, NewTenant, TenantRow, create_tenant, tenants};
pub use isolation::Isolation;
pub use operate::{
    Change, Operated, Refusal, TenantOverview, grant_role, list_tenants, list_users, repair_audit_log, restore_user,
    resume_tenant, suspend_tenant, tenant_overview,
};
pub use page::Cursor;
pub use scope::{OfTenant, Resource};
pub use trail::{Entries, Trail};
pub use work::{Find, UnitOfWork};

use crate::audit::{Actor, Record, Recorder, Refusals};
use crate::database::{self, Access, Pool};
use crate::error::{ApiError, ErrorCode};
use sea_orm::{DatabaseConnection, DbErr};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// Gives units of work on the pool. One for the process; cheap to clone.
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

    /// A unit of work that reads.
    pub async fn read(&self, actor: Actor) -> Result<UnitOfWork, ApiError> {
        self.begin(actor, Access::Read).await
    }

    /// A unit of work that may write.
    pub async fn write(&self, actor: Actor) -> Result<UnitOfWork, ApiError> {
        self.begin(actor, Access::Write).await
    }

    async fn begin(&self, actor: Actor, access: Access) -> Result<UnitOfWork, ApiError> {
        let transaction = self.pool.begin(actor.tenant_id, access).await.map_err(no_role)?;
        Ok(UnitOfWork::new(transaction, actor, self.recorder.clone()))
    }

    /// Records what is not part of a unit of work; returns once it is committed.
    pub async fn record(&self, tenant: Uuid, record: Record) -> Result<(), ApiError> {
        self.recorder.record(tenant, record).await
    }

    /// Records a refusal; returns once it is committed, or counted where an equal one was recorded within a minute.
    pub async fn record_refusal(&self, tenant: Uuid, record: Record) -> Result<(), ApiError> {
        self.refusals.record(tenant, record).await
    }

    /// Records what is counted and not recorded yet: for the end of the process.
    pub async fn flush(&self) {
        self.refusals.flush().await;
    }

    /// The tenant that a token names, and its user of this subject if it has one; one round trip.
    pub async fn caller(&self, external_id: &str, subject: &str) -> Result<Option<CallerRow>, ApiError> {
        CallerRow::find(&self.pool, external_id, subject).await.map_err(no_role)
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

/// Where the role may not be taken on, no other is used instead.
fn no_role(error: DbErr) -> ApiError {
    if database::may_not_take_role(&error) {
        tracing::error!(%error, "DATABASE_URL: its role may not take on {0}: GRANT {0} TO it", database::APP_ROLE);
        return ApiError::detailed(ErrorCode::NotIsolated, error.to_string());
    }
    error.into()
}
