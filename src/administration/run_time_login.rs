//! The login of run time, which has the rights of the API and no others.

use crate::database::APP_ROLE;
use postgres_protocol::password::scram_sha_256;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait};

/// What was done for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// It was made.
    Made,
    /// It was there, and has the password now.
    PasswordSet,
}

/// Why a login is not one of run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is a superuser, or may bypass row-level security, replicate, run programs or use files of the server, or make roles or
    /// databases; or it is a member of a role that is or may.
    Powerful,
    /// It owns the database, the schema, or a table or function of it, or is a member of a role that does.
    Owner,
}

/// The role that [`APP_ROLE`] names, which the first migration that needs it would make (`enforce_tenancy`).
const MAKE_APP_ROLE: &str = "DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bulkhead_app') THEN
        CREATE ROLE bulkhead_app NOLOGIN;
    END IF;
END $$";

/// With each role that it may turn into by SET ROLE. Some of the server's own lead to a superuser's rights
/// (postgresql.org/docs/current/predefined-roles.html). The owner of a schema may drop what others have in it
/// (postgresql.org/docs/current/sql-droptable.html).
const FIND: &str = "SELECT
    EXISTS (SELECT FROM pg_roles p WHERE pg_has_role(r.oid, p.oid, 'MEMBER')
            AND (p.rolsuper OR p.rolbypassrls OR p.rolcreaterole OR p.rolcreatedb OR p.rolreplication
                OR p.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))) AS powerful,
    EXISTS (SELECT FROM pg_database d WHERE d.datname = current_database() AND pg_has_role(r.oid, d.datdba, 'MEMBER'))
        OR EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = current_schema() AND pg_has_role(r.oid, n.nspowner, 'MEMBER'))
        OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
            AND pg_has_role(r.oid, c.relowner, 'MEMBER'))
        OR EXISTS (SELECT FROM pg_proc f WHERE f.pronamespace = quote_ident(current_schema())::regnamespace
            AND pg_has_role(r.oid, f.proowner, 'MEMBER')) AS owns
    FROM pg_roles r WHERE r.rolname = $1";

/// Whether this login of PostgreSQL is one of run time; `None` where there is no such login.
pub(super) async fn fitness(
    connection: &impl ConnectionTrait,
    login: &str,
) -> Result<Option<Result<(), Unfit>>, DbErr> {
    let find = Statement::from_sql_and_values(DbBackend::Postgres, FIND, [login.into()]);
    let Some(row) = connection.query_one_raw(find).await? else { return Ok(None) };
    Ok(Some(if row.try_get("", "powerful")? {
        Err(Unfit::Powerful)
    } else if row.try_get("", "owns")? {
        Err(Unfit::Owner)
    } else {
        Ok(())
    }))
}

/// Makes this login of PostgreSQL, or sets its password, and lets it act as the API: one transaction. `connection` must have
/// the right to make roles. Nothing has changed where the login is unfit.
pub async fn prepare_login(
    connection: &DatabaseConnection,
    login: &str,
    password: &str,
) -> Result<Result<Prepared, Unfit>, DbErr> {
    let statement = |sql: &str, values: &[&str]| {
        Statement::from_sql_and_values(DbBackend::Postgres, sql, values.iter().map(|value| (*value).into()))
    };
    let transaction = connection.begin().await?;
    // Two at once would meet in the catalogue, and one would fail.
    transaction
        .execute_unprepared("SELECT pg_advisory_xact_lock(hashtextextended('bulkhead/run-time-login', 0))")
        .await?;
    transaction.execute_unprepared(MAKE_APP_ROLE).await?;
    let (change, prepared) = match fitness(&transaction, login).await? {
        Some(Err(unfit)) => return Ok(Err(unfit)),
        None => ("CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L", Prepared::Made),
        Some(Ok(())) => ("ALTER ROLE %I LOGIN PASSWORD %L", Prepared::PasswordSet),
    };
    // The server may log the statement, so it gets what it would store, as psql's \password does
    // (postgresql.org/docs/current/sql-createrole.html, "PASSWORD").
    let verifier = scram_sha_256(password.as_bytes());
    let database: String = transaction
        .query_one_raw(statement("SELECT current_database()::text AS name", &[]))
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("the database's name".to_owned()))?
        .try_get("", "name")?;
    for (form, values) in [
        (change, [login, verifier.as_str()]),
        ("GRANT %I TO %I", [APP_ROLE, login]),
        ("GRANT CONNECT ON DATABASE %I TO %I", [database.as_str(), login]),
    ] {
        let sql = transaction
            .query_one_raw(statement("SELECT format($1, $2, $3) AS sql", &[form, values[0], values[1]]))
            .await?
            .ok_or_else(|| DbErr::RecordNotFound("a statement".to_owned()))?;
        transaction.execute_unprepared(&sql.try_get::<String>("", "sql")?).await?;
    }
    transaction.commit().await?;
    Ok(Ok(prepared))
}
