//! Asks the database in sessions that are not the requests': whether it is there, and whether it takes changes.

use super::new_session::{TAKES_WRITES, reach, takes_writes};
use super::{Availability, Pool, code};
use crate::config::{DatabaseUrl, Settings};
use sea_orm::sqlx;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, RuntimeErr, Statement};
use std::time::Duration;

/// How long to wait for the one connection; longer than a check may take, so that it is always the check that ends.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the connection stays open that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// What readiness asks with. Opens no connection yet; cheap to clone.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Connections that are kept, for what a session's age is nothing to: one for the schema, one for isolation, so that neither
    /// waits for the other.
    kept: Pool,
    /// For new sessions (PostgreSQL).
    options: Option<PgConnectOptions>,
    availability: Availability,
}

impl Probe {
    /// For the database of these settings, of whose requests' pool `availability` is.
    #[must_use]
    pub fn new(settings: &Settings, availability: Availability) -> Self {
        let (kept, options) = match &settings.database {
            DatabaseUrl::Postgres(options) => {
                let options = super::quiet(options.as_ref().clone().application_name("bulkhead health"));
                let pool =
                    super::sessions(settings, PgPoolOptions::new()).max_connections(2).test_before_acquire(false);
                let pool = pool.acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(IDLE_TIMEOUT);
                (DatabaseConnection::from(pool.connect_lazy_with(options.clone())), Some(options))
            }
            DatabaseUrl::Sqlite(options) => {
                let options = super::sqlite(options).busy_timeout(ACQUIRE_TIMEOUT);
                let pool = super::sqlite_pool_options(settings).max_connections(1);
                (pool.acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options).into(), None)
            }
        };
        Self { kept: kept.into(), options, availability }
    }

    /// The connections of its own, on which a lock keeps nobody but readiness waiting.
    #[must_use]
    pub fn kept(&self) -> &Pool {
        &self.kept
    }

    /// Whether the database takes changes. A new session asks, since what sessions may is decided when they begin.
    pub async fn takes_writes(&self) -> Result<bool, DbErr> {
        let Some(options) = &self.options else { return self.sqlite_takes_writes().await };
        let asked = takes_writes(options).await.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())));
        match asked {
            // too_many_connections: others have taken the last one. Those that are open serve.
            Err(error) if code(&error).as_deref() == Some("53300") => self.kept_takes_writes().await,
            Err(error) => {
                self.availability.doubt();
                Err(error)
            }
            answer => answer,
        }
    }

    async fn kept_takes_writes(&self) -> Result<bool, DbErr> {
        let statement = Statement::from_string(self.kept.get_database_backend(), TAKES_WRITES);
        let row = self.kept.query_one_raw(statement).await?;
        row.map_or(Ok(false), |row| row.try_get("", "takes_writes"))
    }

    /// As the last change went; where that was refused, as one goes that changes nothing. It is the version that SQLite
    /// keeps for its user (sqlite.org/pragma.html, "PRAGMA user_version"), which nothing here uses.
    async fn sqlite_takes_writes(&self) -> Result<bool, DbErr> {
        self.kept.ping().await?;
        if self.availability.refuses_writes() {
            if let Err(error) = self.kept.execute_unprepared("PRAGMA user_version = 0").await {
                tracing::warn!(%error, "the database takes no changes");
                return Ok(false);
            }
            self.availability.took_a_write();
        }
        Ok(true)
    }

    /// Why the database cannot be reached now; `None` where it can, and for SQLite.
    pub(crate) async fn absence(&self, timeout: Duration) -> Option<sqlx::Error> {
        reach(self.options.as_ref()?, timeout).await.err()
    }
}
