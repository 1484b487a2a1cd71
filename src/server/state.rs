//! What handlers share.

use super::prepare::leniency;
use super::{Lifecycle, SingleFlight};
use crate::api::{DatabaseChecks, Pages};
use crate::auth::Auth;
use crate::config::{MigrateOnStart, Settings};
use crate::database::{Pool, Probe};
use crate::tenancy::Tenancy;
use axum::extract::FromRef;
use bulkhead_migrator::{Fit, Misfit, Runner, Standing, State};
use sea_orm::{DatabaseConnection, DbErr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What handlers share; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The only way to tenants' data.
    pub tenancy: Tenancy,
    /// The pool that requests use: not for handlers, which would see every tenant's rows.
    pub(super) database: Pool,
    /// What readiness asks the database with.
    pub(crate) probe: Probe,
    /// Checks tokens and leads logins.
    pub auth: Arc<Auth>,
    /// Where the process stands.
    pub lifecycle: Lifecycle,
    /// Knows this build's migrations, and reads the schema's state.
    pub runner: Arc<Runner>,
    pub(crate) checks: Arc<SingleFlight<DatabaseChecks>>,
    pub(crate) pages: Pages,
    schema_fits: Arc<AtomicBool>,
    started: Arc<AtomicBool>,
}

impl AppState {
    /// The state of a process that has just begun. Needs a runtime, for the audit log's recorder.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        database: Pool,
        auth: Arc<Auth>,
        lifecycle: Lifecycle,
        runner: Arc<Runner>,
    ) -> Self {
        let tenancy = Tenancy::new(database.clone());
        let probe = Probe::new(&settings, database.availability().clone());
        let (pages, (checks, schema_fits, started)) = (Pages::new(&settings), Default::default());
        Self { settings, tenancy, database, probe, auth, lifecycle, runner, checks, pages, schema_fits, started }
    }

    /// Whether the database is known to be away.
    #[must_use]
    pub fn database_is_away(&self) -> bool {
        self.database.availability().is_away()
    }

    /// The schema as it stands now, seen on this connection.
    pub async fn schema(&self, connection: &DatabaseConnection) -> Result<State, DbErr> {
        self.runner.state(connection).await
    }

    /// Records whether this build serves with the schema that there is.
    pub(crate) fn set_schema_fits(&self, fits: bool) {
        self.schema_fits.store(fits, Ordering::Relaxed);
    }

    /// Whether it did when that could last be told.
    #[must_use]
    pub(crate) fn schema_fitted(&self) -> bool {
        self.schema_fits.load(Ordering::Relaxed)
    }

    /// Whether this build serves with a schema in this state.
    pub fn fit(&self, schema: &State) -> Result<Fit, Misfit> {
        match self.settings.migrate_on_start {
            MigrateOnStart::Apply | MigrateOnStart::Verify => schema.verify(leniency(&self.settings)),
            MigrateOnStart::Off if !schema.names(Standing::Dirty).is_empty() => {
                Err(Misfit::Dirty(schema.names(Standing::Dirty)))
            }
            MigrateOnStart::Off if schema.pending().is_empty() => Ok(Fit::Exact),
            MigrateOnStart::Off => Err(Misfit::Pending(schema.pending())),
        }
    }

    /// Whether readiness has passed once.
    #[must_use]
    pub fn started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Records that readiness has passed.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }
}

impl FromRef<AppState> for Arc<Auth> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.auth)
    }
}

impl FromRef<AppState> for Tenancy {
    fn from_ref(state: &AppState) -> Self {
        state.tenancy.clone()
    }
}
