//! The state that handlers share.

use crate::auth::Auth;
use crate::config::Settings;
use crate::database::{Pool, Probe};
use crate::lifecycle::Lifecycle;
use crate::pages::Pages;
use crate::readiness::DatabaseChecks;
use crate::single_flight::SingleFlight;
use crate::subject_names::SubjectNames;
use crate::tenancy::Tenancy;
use bulkhead_migrator::Runner;
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
    pub(crate) database: Pool,
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
    pub(crate) subjects: SubjectNames,
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
        let subjects = settings.audit.subject_names.clone();
        Self {
            settings,
            tenancy,
            database,
            probe,
            auth,
            lifecycle,
            runner,
            checks,
            pages,
            subjects,
            schema_fits,
            started,
        }
    }

    /// Whether the database is known to be away.
    #[must_use]
    pub fn database_is_away(&self) -> bool {
        self.database.availability().is_away()
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
