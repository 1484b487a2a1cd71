//! What an auditor asks of a deployment, as it is at a moment. Changes nothing.

use super::doctor::examine;
use super::finding::{Finding, Verdict};
use super::tenants::tenants;
use crate::audit;
use crate::config::{ResolvedVariable, Settings};
use crate::database::{self, Access};
use crate::ids::TenantId;
use bulkhead_migrator::Runner;
use sea_orm::{DatabaseConnection, DbBackend, DbErr, FromQueryResult, JsonValue, Statement};
use serde::Serialize;
use time::OffsetDateTime;

/// The packet. It names tenants, roles and variables, and has no secret and no person's data.
#[derive(Debug, Serialize)]
pub struct Evidence {
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub made_at: OffsetDateTime,
    /// What the program was built from.
    pub build: Build,
    /// The variables, with `***` for a secret.
    pub settings: Vec<ResolvedVariable>,
    /// What `bulkhead doctor` found.
    pub findings: Vec<Finding>,
    /// The schema's history.
    pub migrations: Vec<JsonValue>,
    /// The server's roles, and of which roles they are members; none on SQLite.
    pub roles: Vec<JsonValue>,
    /// Who may do what with each table, column, view, sequence and function of the schema; none on SQLite.
    pub grants: Vec<JsonValue>,
    /// For each table, whether row-level security is on and holds for the owner, too; none on SQLite.
    pub row_level_security: Vec<JsonValue>,
    /// The policies; none on SQLite.
    pub policies: Vec<JsonValue>,
    /// The audit log of each tenant, verified from the first entry that is not archived.
    pub audit_logs: Vec<AuditLog>,
}

/// What the program was built from.
#[derive(Debug, Serialize)]
pub struct Build {
    /// Its version.
    pub version: &'static str,
    /// The commit, where SOURCE_REVISION names it.
    pub source_revision: Option<String>,
    /// SHA-256 of its Cargo.lock.
    pub cargo_lock_sha256: &'static str,
    /// SHA-256 of its flake.lock.
    pub flake_lock_sha256: &'static str,
}

/// A tenant's audit log.
#[derive(Debug, Serialize)]
pub struct AuditLog {
    /// The tenant's id at the identity provider; `system` for what belongs to no tenant.
    pub tenant: String,
    /// The tenant's id here.
    pub tenant_id: TenantId,
    /// The number of the last entry that is archived, and not looked at; 0 where none is.
    pub archived: i64,
    /// How many entries there are; nothing where the chain is broken.
    pub entries: Option<u64>,
    /// The hash of the last entry.
    pub head: Option<String>,
    /// How often the chain was broken and repaired.
    pub repairs: usize,
    /// Where the chain is broken.
    pub broken: Option<String>,
}

impl Evidence {
    /// How many things are wrong: what the doctor says is, and chains that are broken.
    #[must_use]
    pub fn faults(&self) -> usize {
        let wrong = self.findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
        wrong + self.audit_logs.iter().filter(|log| log.broken.is_some()).count()
    }
}

/// Collects it, on the connection of the migrations, which sees all. `shown` are the variables that `settings` came from.
///
/// # Errors
/// When the database cannot be read.
pub async fn collect_evidence(
    settings: &Settings,
    shown: Vec<ResolvedVariable>,
    runner: &Runner,
    connection: &DatabaseConnection,
) -> Result<Evidence, DbErr> {
    let ask = async |sql: &str| rows(connection, sql).await;
    let is_postgres = connection.get_database_backend() == DbBackend::Postgres;
    let ask_postgres = async |sql: &str| if is_postgres { ask(sql).await } else { Ok(Vec::new()) };
    Ok(Evidence {
        made_at: OffsetDateTime::now_utc(),
        build: Build {
            version: env!("CARGO_PKG_VERSION"),
            source_revision: settings.source_revision.clone(),
            cargo_lock_sha256: env!("CARGO_LOCK_SHA256"),
            flake_lock_sha256: env!("FLAKE_LOCK_SHA256"),
        },
        settings: shown,
        findings: examine(settings, runner).await,
        migrations: ask(MIGRATIONS).await?,
        roles: ask_postgres(ROLES).await?,
        grants: ask_postgres(GRANTS).await?,
        row_level_security: ask_postgres(ROW_LEVEL_SECURITY).await?,
        policies: ask_postgres(POLICIES).await?,
        audit_logs: audit_logs(connection).await?,
    })
}

async fn rows(connection: &DatabaseConnection, sql: &str) -> Result<Vec<JsonValue>, DbErr> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    JsonValue::find_by_statement(statement).all(connection).await
}

async fn audit_logs(connection: &DatabaseConnection) -> Result<Vec<AuditLog>, DbErr> {
    let mut logs = Vec::new();
    for tenant in tenants(connection, None).await? {
        let transaction = database::begin(connection, tenant.id, Access::Operate).await?;
        let outcome = audit::verify(&transaction, tenant.id).await?;
        let log = AuditLog {
            tenant: tenant.external_id,
            tenant_id: tenant.id,
            archived: 0,
            entries: None,
            head: None,
            repairs: 0,
            broken: None,
        };
        logs.push(match outcome {
            Ok(verified) => AuditLog {
                archived: verified.archived,
                entries: Some(verified.entries),
                head: Some(verified.head),
                repairs: verified.repairs.len(),
                ..log
            },
            Err(broken) => AuditLog { broken: Some(broken.to_string()), ..log },
        });
    }
    Ok(logs)
}

const MIGRATIONS: &str = "SELECT applied.version AS name, applied.applied_at AS applied_at_unix, meta.fingerprint
    FROM seaql_migrations AS applied LEFT JOIN seaql_migrations_meta AS meta ON meta.version = applied.version
    ORDER BY applied.version";

const ROLES: &str = "SELECT rolname::text AS name, rolcanlogin AS may_log_in, rolsuper AS superuser,
        rolbypassrls AS bypasses_row_level_security, rolinherit AS inherits, rolcreaterole AS creates_roles,
        (SELECT coalesce(json_agg(of_role.rolname ORDER BY of_role.rolname), '[]'::json) FROM pg_auth_members AS members
            JOIN pg_roles AS of_role ON of_role.oid = members.roleid WHERE members.member = roles.oid) AS member_of
    FROM pg_roles AS roles WHERE rolname !~ '^pg_' ORDER BY rolname";

const GRANTS: &str = "SELECT kind, object, coalesce(rolname::text, 'PUBLIC') AS grantee,
        json_agg(privilege_type ORDER BY privilege_type) AS privileges
    FROM (
        SELECT CASE relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'table' END AS kind,
            relname::text AS object,
            (aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner)))).*
        FROM pg_class WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL
        SELECT 'column', attrelid::regclass || '.' || attname, (aclexplode(attacl)).*
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = quote_ident(current_schema())::regnamespace AND attacl IS NOT NULL
        UNION ALL
        SELECT 'function', oid::regprocedure::text, (aclexplode(coalesce(proacl, acldefault('f', proowner)))).*
        FROM pg_proc WHERE pronamespace = quote_ident(current_schema())::regnamespace
    ) AS granted LEFT JOIN pg_roles ON pg_roles.oid = grantee
    GROUP BY kind, object, rolname ORDER BY kind, object, rolname";

const ROW_LEVEL_SECURITY: &str = "SELECT relname::text AS table, pg_get_userbyid(relowner)::text AS owner,
        relrowsecurity AS enabled, relforcerowsecurity AS for_the_owner_too
    FROM pg_class WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relkind IN ('r', 'p') ORDER BY relname";

const POLICIES: &str =
    "SELECT tablename::text AS table, policyname::text AS name, permissive::text AS kind, cmd::text AS command,
        array_to_json(roles) AS roles, qual AS using, with_check
    FROM pg_policies WHERE schemaname = current_schema() ORDER BY tablename, policyname";
