//! By what way, by which login and past which policies the rows of tenants can be reached: what `doctor` finds of PostgreSQL
//! besides the isolation of the API's own role.

use super::finding::Finding;
use crate::config::Settings;
use crate::database::{self, Pool, Route};
use crate::tenancy::openings;
use sea_orm::{DatabaseConnection, DbBackend, DbErr, FromQueryResult, Statement};

const POOLER: &str = "pooler";
const POLICIES: &str = "policies";

/// What is thought of the way by which requests reach the database; `None` with SQLite.
pub(super) fn pooler(route: &Result<Option<Route>, DbErr>) -> Option<Finding> {
    Some(match route {
        Ok(None) => return None,
        Ok(Some(Route::Direct)) => Finding::good(POOLER, "there is none before DATABASE_URL's server"),
        Ok(Some(Route::Sessions)) => {
            let text = "DATABASE_URL goes through one (such as PgBouncer) in session mode: its pool needs a session for each \
                 connection of an instance";
            Finding::good(POOLER, text)
        }
        Ok(Some(Route::Transactions { unprepared: None })) => {
            let text = "DATABASE_URL goes through one (such as PgBouncer) in transaction mode, which keeps prepared statements";
            Finding::good(POOLER, text)
        }
        Ok(Some(Route::Transactions { unprepared: Some(what) })) => {
            let text = format!(
                "DATABASE_URL goes through one (such as PgBouncer) in transaction mode, which mixes up prepared statements: {what}"
            );
            let mend =
                "PgBouncer 1.21 or newer with max_prepared_statements = 200, or pool_mode = session; then look again";
            Finding::wrong(POOLER, text, mend)
        }
        Err(error) => {
            let text = format!("whether DATABASE_URL goes through one cannot be told: {}", database::text(error));
            Finding::risky(POOLER, text, "see that two more connections may be opened")
        }
    })
}

/// What is risky or wrong in how migrations and commands reach the database.
pub(super) async fn migration_ways(settings: &Settings, connection: &DatabaseConnection) -> Vec<Finding> {
    let variable = settings.migration_database_variable;
    let mut findings = Vec::new();
    let route = Route::look(&settings.migration_database, settings.database_acquire_timeout).await;
    if let Ok(Some(Route::Transactions { .. })) = route {
        let text = format!("{variable} goes through one in transaction mode, by which migrations are refused");
        let mend = "set MIGRATION_DATABASE_URL to a direct connection to PostgreSQL";
        findings.push(Finding::risky(POOLER, text, mend));
    }
    if let Ok(Some(owner)) = bare_owner(connection).await {
        let text = format!(
            "the login of {variable} inherits no right of {}, which owns the tables: migrations and commands are refused",
            owner.owner
        );
        findings.push(Finding::wrong("login", text, owner.mend));
    }
    findings
}

/// The role that owns the tables, where the connection's login is a member of it and has none of its rights.
#[derive(FromQueryResult)]
struct BareOwner {
    owner: String,
    mend: String,
}

/// Asks for the current role: a login may take on the owner by its settings.
const BARE_OWNER: &str = "SELECT c.relowner::regrole::text AS owner,
        CASE WHEN current_setting('server_version_num')::int >= 160000
                THEN format('GRANT %s TO %I WITH INHERIT TRUE', c.relowner::regrole, login.rolname)
            WHEN login.rolinherit THEN format('GRANT %s TO %I', c.relowner::regrole, login.rolname)
            ELSE format('ALTER ROLE %I INHERIT', login.rolname) END AS mend
    FROM pg_class c JOIN pg_roles login ON login.rolname = current_user
    WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND c.relname = 'tenants'
        AND pg_has_role(c.relowner, 'MEMBER') AND NOT pg_has_role(c.relowner, 'USAGE')";

async fn bare_owner(connection: &DatabaseConnection) -> Result<Option<BareOwner>, DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    BareOwner::find_by_statement(Statement::from_string(DbBackend::Postgres, BARE_OWNER)).one(connection).await
}

/// Which rows of tenants policies and rights open besides those that isolation is about; nothing with SQLite.
pub(super) async fn policies(pool: &Pool) -> Vec<Finding> {
    match openings(pool).await {
        Ok(None) => Vec::new(),
        Ok(Some(openings)) if openings.is_empty() => {
            vec![Finding::good(POLICIES, "none shows the rows of all tenants to another role")]
        }
        Ok(Some(openings)) => openings
            .into_iter()
            .map(|opening| {
                let make = if opening.to_the_api { Finding::wrong } else { Finding::risky };
                make(POLICIES, opening.text, opening.mend)
            })
            .collect(),
        Err(error) => vec![Finding::wrong(POLICIES, database::text(&error), "it cannot be told: see the schema first")],
    }
}
