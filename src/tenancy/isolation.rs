//! Whether the database keeps tenants apart, and where it does not.

use crate::audit;
use crate::database::{self, Access};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

/// Who keeps tenants apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// The database, whatever a query says, and the application besides.
    Database,
    /// The application alone: the database has no means for it (SQLite).
    Application,
    /// The database could, but these faults keep it from doing so.
    NotEnforced(Vec<String>),
}

impl Isolation {
    /// Asks the catalogue for every table, policy, key, trigger, function and right of the schema; `isolation.sql` holds
    /// the rules. With [`Access::Read`] it asks as the role that requests have, and whether that role can be had is a
    /// part of the question.
    pub async fn look(pool: &DatabaseConnection, access: Access) -> Result<Self, DbErr> {
        if pool.get_database_backend() != DbBackend::Postgres {
            return Ok(Self::Application);
        }
        let transaction = match database::begin(pool, audit::SYSTEM_TENANT, access).await {
            Err(error) if database::may_not_take_role(&error) => {
                let fault = format!("DATABASE_URL: its role may not take on {0}: GRANT {0} TO it", database::APP_ROLE);
                return Ok(Self::NotEnforced(vec![fault]));
            }
            begun => begun?,
        };
        let rules = Statement::from_string(DbBackend::Postgres, include_str!("isolation.sql"));
        let rows = transaction.query_all_raw(rules).await?;
        let faults = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<Vec<String>, _>>()?;
        Ok(if faults.is_empty() { Self::Database } else { Self::NotEnforced(faults) })
    }
}
