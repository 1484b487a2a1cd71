//! Whether the database keeps tenants apart, and where it does not.

use crate::audit;
use crate::database::{self, Access};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, Statement};

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

/// Rows of tenants that a policy or a right opens, besides those that [`Isolation`] is about.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Opening {
    /// Whether they are open to the API's role.
    pub to_the_api: bool,
    /// What is open.
    pub text: String,
    /// What closes it.
    pub mend: String,
}

/// What is open to other roles, and to the API's outside of the schema; `None` with SQLite, which has neither.
pub async fn openings(pool: &DatabaseConnection) -> Result<Option<Vec<Opening>>, DbErr> {
    if pool.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let transaction = database::begin(pool, audit::SYSTEM_TENANT, Access::Read).await?;
    let rules = Statement::from_string(DbBackend::Postgres, include_str!("openings.sql"));
    Opening::find_by_statement(rules).all(&transaction).await.map(Some)
}

/// The triggers that guard the audit log on SQLite. On PostgreSQL, `isolation.sql` knows what guards it.
const SQLITE_GUARDS: [&str; 15] = [
    "audit_checkpoints_no_delete",
    "audit_checkpoints_no_replace",
    "audit_checkpoints_no_update",
    "audit_heads_advance",
    "audit_heads_no_replace",
    "audit_heads_stay",
    "audit_logs_chain",
    "audit_logs_head",
    "audit_logs_no_delete",
    "audit_logs_no_replace",
    "audit_logs_no_update",
    "audit_nodes_no_delete",
    "audit_nodes_no_replace",
    "audit_nodes_no_update",
    "tenants_audit_chain",
];

/// What of the triggers, rights and policies that guard the audit log is not as it should be.
pub async fn audit_guard_faults(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let Isolation::NotEnforced(mut faults) = Isolation::look(connection, Access::Operate).await? else {
            return Ok(Vec::new());
        };
        // What concerns other tables alone is for `migrate verify`.
        faults
            .retain(|fault| fault.contains("audit_") || !(fault.starts_with("table ") || fault.starts_with("policy ")));
        return Ok(faults);
    }
    let triggers = Statement::from_string(DbBackend::Sqlite, "SELECT name FROM sqlite_master WHERE type = 'trigger'");
    let rows = connection.query_all_raw(triggers).await?;
    let there = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<Vec<String>, _>>()?;
    let missing = SQLITE_GUARDS.into_iter().filter(|name| !there.iter().any(|other| other == name));
    Ok(missing.map(|name| format!("trigger {name} is missing")).collect())
}
