//! Opens the database: a pool for requests, what migrations connect with, and transactions that belong to one tenant.

use crate::config::{DatabaseUrl, Settings};
use bulkhead_migration::Target;
pub(crate) use bulkhead_migration::code;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions, Database, Postgres, Sqlite};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use std::time::Duration;
use tracing::log::LevelFilter;
use uuid::Uuid;

/// The role that run-time transactions take on (PostgreSQL); migrations make it.
pub const APP_ROLE: &str = "bulkhead_app";

/// A statement slower than this is a warning in the log (its text, never its values).
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// How long a SQLite writer waits for another one.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool that requests use. Opens no connection yet: the first use does, so that the server can answer, and say
/// that it is not ready, while the database is down.
#[must_use]
pub fn pool(settings: &Settings) -> DatabaseConnection {
    match &settings.database {
        DatabaseUrl::Postgres(options) => {
            let timeout = settings.database_statement_timeout.as_millis();
            let options = quiet(options.as_ref().clone().application_name("bulkhead"));
            // Not as start-up parameters, which PgBouncer refuses. The role is there once the schema is.
            let after_connect = format!(
                "SET statement_timeout = {timeout};
                 SELECT set_config('role', rolname, false) FROM pg_roles
                 WHERE rolname = '{APP_ROLE}' AND pg_has_role(session_user, oid, 'MEMBER')
                     AND NOT EXISTS (
                         SELECT FROM unnest(array['seaql_migrations', 'seaql_migrations_meta']) AS history
                         WHERE has_table_privilege(oid, to_regclass(history)::oid, 'SELECT') IS NOT TRUE)"
            );
            pool_options::<Postgres>(settings)
                .after_connect(move |connection, _| {
                    let statement = sqlx::raw_sql(AssertSqlSafe(after_connect.clone()));
                    Box::pin(async move { statement.execute(connection).await.map(drop) })
                })
                .connect_lazy_with(options)
                .into()
        }
        DatabaseUrl::Sqlite(options) => {
            let options = sqlite(options).foreign_keys(true).busy_timeout(SQLITE_BUSY_TIMEOUT);
            pool_options::<Sqlite>(settings).connect_lazy_with(options).into()
        }
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reading.
    Read,
    /// Reading and writing, as the API may.
    Write,
    /// Reading and writing with all the rights of the connection's own role, and a look at which tenants there are: for
    /// the command line.
    Operate,
}

/// Begins a transaction in which the database shows this tenant's rows and no others (PostgreSQL; on SQLite queries
/// must name the tenant themselves). Whatever role the connection has, the transaction has [`APP_ROLE`], save to
/// operate.
pub async fn begin(pool: &DatabaseConnection, tenant: Uuid, access: Access) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        // Else two that read first and write then would each wait for the other's end.
        sqlite_transaction_mode: (access != Access::Read).then_some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = pool.begin_with_options(options).await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        // One round trip, also through a pooler that keeps nothing between transactions.
        let sql = match access {
            Access::Read | Access::Write => {
                "SELECT set_config('role', $2, true), set_config('app.current_tenant_id', $1, true)"
            }
            Access::Operate => {
                "SELECT set_config('app.directory', $2, true), set_config('app.current_tenant_id', $1, true)"
            }
        };
        let second = if access == Access::Operate { "on" } else { APP_ROLE };
        let values = [tenant.to_string().into(), second.into()];
        transaction.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
    }
    Ok(transaction)
}

/// Whether PostgreSQL says that a connection's role may not take on [`APP_ROLE`], or that there is no such role.
#[must_use]
pub fn may_not_take_role(error: &DbErr) -> bool {
    // insufficient_privilege, invalid_parameter_value (postgresql.org/docs/current/errcodes-appendix.html).
    matches!(code(error).as_deref(), Some("42501" | "22023"))
}

/// Where migrations run, with what every connection of ours has.
#[must_use]
pub fn migration_target(settings: &Settings) -> Target {
    match &settings.migration_database {
        DatabaseUrl::Postgres(options) => {
            Target::Postgres(Box::new(quiet(options.as_ref().clone().application_name("bulkhead migrate"))))
        }
        DatabaseUrl::Sqlite(options) => Target::Sqlite(Box::new(sqlite(options))),
    }
}

/// A connection to read the schema's state with, where migrations run.
#[must_use]
pub fn migration_connection(settings: &Settings) -> DatabaseConnection {
    match migration_target(settings) {
        Target::Postgres(options) => {
            pool_options::<Postgres>(settings).max_connections(1).connect_lazy_with(*options).into()
        }
        Target::Sqlite(options) => {
            pool_options::<Sqlite>(settings).max_connections(1).connect_lazy_with(*options).into()
        }
    }
}

fn pool_options<DB: Database>(settings: &Settings) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(settings.database_max_connections)
        .acquire_timeout(settings.database_acquire_timeout)
}

fn sqlite(options: &SqliteConnectOptions) -> SqliteConnectOptions {
    quiet(options.clone()).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal)
}

fn quiet<O: ConnectOptions>(options: O) -> O {
    options.log_statements(LevelFilter::Trace).log_slow_statements(LevelFilter::Warn, SLOW_STATEMENT)
}
