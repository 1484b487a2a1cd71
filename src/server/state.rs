//! What handlers share.

use super::Lifecycle;
use crate::config::Settings;
use sea_orm::DatabaseConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What handlers share; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The pool that requests use.
    pub database: DatabaseConnection,
    /// Where the process stands.
    pub lifecycle: Lifecycle,
    started: Arc<AtomicBool>,
}

impl AppState {
    /// The state of a process that has just begun.
    #[must_use]
    pub fn new(settings: Arc<Settings>, database: DatabaseConnection, lifecycle: Lifecycle) -> Self {
        Self { settings, database, lifecycle, started: Arc::default() }
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
