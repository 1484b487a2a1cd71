//! Looks at the settings, the database and the identity provider of a deployment: what is good, what is risky, what is wrong, and
//! what mends it. Changes nothing.

use super::finding::{Finding, Verdict};
use super::run_time_login::{Unfit, fitness};
use super::ways::{migration_ways, policies, pooler};
use crate::auth::{Auth, KeyStatus};
use crate::clock::unix_seconds;
use crate::config::{DatabaseUrl, Environment, Issuer, Settings};
use crate::database::{self, Access, Pool, Probe, Route};
use crate::tenancy::{Isolation, audit_guard_faults};
use bulkhead_migrator::{Compatibility, Runner};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, Statement, TransactionTrait};
use std::error::Error;

/// The connections that an instance takes besides its pool: docs/settings.md, "PostgreSQL".
const CONNECTIONS_BESIDES_THE_POOL: u32 = 4;

/// How far the database's clock may be from this machine's until it is a risk, and until it is wrong: tokens are good for a minute
/// before and after their times. In seconds.
const CLOCKS_APART_RISKY: f64 = 2.0;
const CLOCKS_APART_WRONG: f64 = 60.0;

/// What findings on the guards of the audit log are about.
const AUDIT_LOG: &str = "audit log";

/// Looks at everything. `runner` knows this build's migrations.
pub async fn examine(settings: &Settings, runner: &Runner) -> Vec<Finding> {
    let mut findings = settings_of(settings);
    findings.extend(database_of(settings, runner).await);
    findings.push(provider_of(settings).await);
    findings
}

fn settings_of(settings: &Settings) -> Vec<Finding> {
    let mut findings: Vec<_> = settings
        .warnings()
        .into_iter()
        .map(|warning| Finding::risky("settings", warning, "change this variable"))
        .collect();
    if settings.database_allow_unverified {
        let text = "DATABASE_ALLOW_UNVERIFIED is set: PostgreSQL on another machine need not prove who it is";
        findings.push(Finding::risky("settings", text, "set sslmode=verify-full in the URLs, and remove the variable"));
    }
    if settings.environment != Environment::Development {
        let key = "openssl rand -base64 32";
        if settings.audit.signing_key.is_none() {
            let text = "AUDIT_SIGNING_KEY is not set: nobody can show that the audit log was not rewritten";
            findings.push(Finding::risky(
                "settings",
                text,
                format!("AUDIT_SIGNING_KEY=$({key}), and AUDIT_ORIGIN with the name of this deployment"),
            ));
        }
        if !settings.audit.subject_names.hide() {
            let text = "AUDIT_SUBJECT_KEY is not set: callers without a user stand in the audit log by their subject";
            findings.push(Finding::risky("settings", text, format!("AUDIT_SUBJECT_KEY=$({key})")));
        }
        if matches!(settings.database, DatabaseUrl::Sqlite(_)) {
            let text = "SQLite has no row-level security: queries alone keep tenants apart";
            findings.push(Finding::risky("settings", text, "use PostgreSQL"));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good("settings", "no setting is a risk"));
    }
    findings
}

async fn database_of(settings: &Settings, runner: &Runner) -> Vec<Finding> {
    if let DatabaseUrl::Sqlite(options) = &settings.database
        && !options.get_filename().exists()
    {
        // To open it would make it.
        let text = format!("{} is not there", settings.database);
        return vec![Finding::wrong("database", text, "see DATABASE_URL; `bulkhead migrate up` makes a new one")];
    }
    let pool = database::pool(settings);
    let away = |error: &(dyn Error + 'static)| vec![away(&settings.database, "DATABASE_URL", error)];
    let probe = Probe::new(settings, pool.availability().clone());
    if let Some(error) = probe.absence(settings.database_acquire_timeout).await {
        return away(&error);
    }
    if let Err(error) = pool.execute_unprepared("SELECT 1").await {
        return away(&error);
    }
    let mut findings = vec![Finding::good("database", format!("{} answers", settings.database))];
    let route = Route::look(&settings.database, settings.database_acquire_timeout).await;
    let pooler = pooler(&route);
    let schema = schema(&pool, runner).await;
    // Statements would be mixed up, and so would be what they find.
    let asks = pooler.as_ref().is_none_or(|finding| finding.verdict != Verdict::Wrong);
    let fits = schema.verdict != Verdict::Wrong;
    findings.extend(pooler.into_iter().chain([schema]));
    // Without its tables there is nothing to look at.
    if fits && asks {
        findings.extend(isolation(&pool, Access::Read).await);
        findings.extend(policies(&pool).await);
    }
    let variable = settings.migration_database_variable;
    if fits && (asks || variable != "DATABASE_URL") {
        // On the connection of the migrations, which sees all of it.
        match database::migration_connection(settings).await {
            Ok(connection) => {
                findings.extend(audit_guards(&connection, variable).await);
                findings.extend(migration_ways(settings, &connection).await);
                let _ = connection.close().await;
            }
            Err(error) => findings.push(unguarded(variable, &error)),
        }
    }
    if asks && pool.get_database_backend() == DbBackend::Postgres {
        findings.extend(server(settings, &pool, route.ok().flatten().as_ref()).await);
    }
    let _ = pool.close().await;
    findings
}

/// A database that cannot be used; the variable names it.
pub(super) fn away(database: &DatabaseUrl, variable: &str, error: &(dyn Error + 'static)) -> Finding {
    let cause = database::cause(database, error);
    // PgBouncer's words.
    let mend = if cause.contains("unsupported startup parameter") {
        "ignore_startup_parameters = extra_float_digits in PgBouncer's configuration".to_owned()
    } else {
        format!("see {variable}, and the database's own state")
    };
    Finding::wrong("database", format!("cannot use {database}: {cause}"), mend)
}

/// Whether this build can work with the schema.
pub(super) async fn schema(pool: &Pool, runner: &Runner) -> Finding {
    let about = "schema";
    let checked = match runner.state(pool).await {
        Ok(state) => runner.check(&state),
        Err(error) => {
            return Finding::wrong(about, database::text(&error), "see `bulkhead migrate status`");
        }
    };
    match checked {
        Ok(Compatibility::Exact) => Finding::good(about, "it is the one that this build was made for"),
        Ok(Compatibility::Ahead(names)) => {
            let text = format!("it is ahead of this build, which can work with it: {}", names.join(", "));
            Finding::risky(about, text, "deploy the newer build everywhere")
        }
        Err(mismatch) => Finding::wrong(
            about,
            mismatch.to_string(),
            "see `bulkhead migrate status`; `bulkhead migrate up` applies what is pending",
        ),
    }
}

/// Whether tenants are kept apart.
pub(super) async fn isolation(pool: &Pool, access: Access) -> Vec<Finding> {
    let about = "isolation";
    match Isolation::look(pool, access).await {
        Ok(Isolation::Database) => vec![Finding::good(about, "the database keeps tenants apart")],
        Ok(Isolation::Application) => vec![Finding::good(about, "queries keep tenants apart, as the database cannot")],
        Ok(Isolation::NotEnforced(faults)) => {
            let mend = |fault: &str| {
                let mend = if fault.starts_with("policy ") {
                    "DROP POLICY, or put it back as the migrations have it"
                } else {
                    "put it back as the migrations have it"
                };
                format!("{mend}; `bulkhead migrate verify` looks again")
            };
            faults.into_iter().map(|fault| Finding::wrong(about, fault.clone(), mend(&fault))).collect()
        }
        Err(error) => vec![Finding::wrong(about, database::text(&error), "it cannot be told: see the schema first")],
    }
}

/// What guards the audit log, on a connection that sees all of it; the variable names its database.
pub(super) async fn audit_guards(connection: &DatabaseConnection, variable: &str) -> Vec<Finding> {
    match audit_guard_faults(connection).await {
        Ok(faults) if faults.is_empty() => {
            vec![Finding::good(
                AUDIT_LOG,
                "its triggers, functions, rights and policies are as the migrations made them",
            )]
        }
        Ok(faults) => {
            let mend = "find out who changed it, put it back, and run `bulkhead audit verify`";
            faults.into_iter().map(|fault| Finding::wrong(AUDIT_LOG, fault, mend)).collect()
        }
        Err(error) => vec![unguarded(variable, &error)],
    }
}

/// That nobody can tell what guards the audit log.
fn unguarded(variable: &str, error: &DbErr) -> Finding {
    Finding::wrong(AUDIT_LOG, format!("{variable}: {}", database::text(error)), "see this variable")
}

/// What PostgreSQL says of itself and of the login.
#[derive(FromQueryResult)]
struct Server {
    login: String,
    superuser: bool,
    bypasses: bool,
    /// What lets the login have the rights of [`database::APP_ROLE`], of which it is a member, at all times.
    lacking: Option<String>,
    encrypted: bool,
    connections: i32,
    now: f64,
}

/// A login lacks nothing that takes the role on by its settings.
const SERVER: &str = "SELECT login.rolname::text AS login, login.rolsuper AS superuser, login.rolbypassrls AS bypasses,
        CASE WHEN app.oid IS NULL OR NOT pg_has_role(login.oid, app.oid, 'MEMBER') OR pg_has_role(login.oid, app.oid, 'USAGE')
                OR EXISTS (
                    SELECT FROM pg_db_role_setting s
                    WHERE s.setrole = login.oid AND s.setdatabase IN (0, d.oid) AND 'role=bulkhead_app' = ANY (s.setconfig))
                THEN NULL
            WHEN current_setting('server_version_num')::int >= 160000
                THEN format('GRANT bulkhead_app TO %I WITH INHERIT TRUE', login.rolname)
            WHEN login.rolinherit THEN format('GRANT bulkhead_app TO %I', login.rolname)
            ELSE format('ALTER ROLE %I INHERIT', login.rolname) END AS lacking,
        coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
        least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true), '0')::int,
            CASE WHEN NOT login.rolsuper AND login.rolconnlimit >= 0 THEN login.rolconnlimit END,
            CASE WHEN NOT login.rolsuper AND d.datconnlimit >= 0 THEN d.datconnlimit END) AS connections,
        extract(epoch FROM clock_timestamp())::float8 AS now
    FROM pg_roles login JOIN pg_database d ON d.datname = current_database()
        LEFT JOIN pg_roles app ON app.rolname = 'bulkhead_app' WHERE login.rolname = session_user";

/// Asks as the login itself: [`database::APP_ROLE`] may not see what the connection is like.
async fn ask(connection: &DatabaseConnection) -> Result<Option<(Server, Result<(), Unfit>)>, DbErr> {
    let transaction = connection.begin().await?;
    transaction.execute_unprepared("SET LOCAL ROLE NONE").await?;
    let server =
        Server::find_by_statement(Statement::from_string(DbBackend::Postgres, SERVER)).one(&transaction).await?;
    let Some(server) = server else { return Ok(None) };
    let fitness = fitness(&transaction, &server.login).await?;
    Ok(fitness.map(|fitness| (server, fitness)))
}

async fn server(settings: &Settings, pool: &Pool, route: Option<&Route>) -> Vec<Finding> {
    let Ok(Some((server, fitness))) = ask(pool).await else {
        return vec![Finding::risky("server", "it does not say what the login may do", "see the rights of the login")];
    };
    let pooled = matches!(route, Some(Route::Transactions { .. }));
    let mut findings = Vec::new();
    // One login for all is allowed: every request takes on the rights of the API's role.
    let risk = match fitness {
        _ if server.superuser => Some("DATABASE_URL logs in as a superuser: whoever has it reads and changes all"),
        _ if server.bypasses => Some("the login of DATABASE_URL has BYPASSRLS"),
        Err(Unfit::Powerful) => Some(
            "the login of DATABASE_URL may make roles or databases, replicate, or act on the server's files or programs, or is a \
             member of a role that may or is a superuser",
        ),
        Err(Unfit::Owner) => Some(
            "the login of DATABASE_URL owns tables, functions, the schema or the database, or is a member of their owner: whoever \
             has it can turn row-level security and the audit log's triggers off",
        ),
        Ok(()) => None,
    };
    findings.push(match risk {
        Some(risk) => {
            let mend = "`bulkhead database prepare` makes a login for run time: name it in DATABASE_URL, and the owner in \
                        MIGRATION_DATABASE_URL; see docs/tenancy.md, \"Roles of your own\"";
            Finding::risky("login", risk, mend)
        }
        None => Finding::good("login", "it is no superuser, owns nothing, and makes no roles"),
    });
    if let Some(grant) = server.lacking {
        let text = "the login of DATABASE_URL inherits no right of bulkhead_app, of which it is a member: it can do nothing \
             until it takes that role on";
        // A session takes it on when it begins, and the pooler gives its connection another one.
        let make = if pooled { Finding::wrong } else { Finding::risky };
        findings.push(make("login", text, grant));
    }
    // A pooler's connection to the server says nothing of the one to the pooler.
    if server.encrypted && route == Some(&Route::Direct) {
        findings.push(Finding::good("encryption", "the connection is encrypted"));
    }
    let needed = settings.database_max_connections.saturating_add(CONNECTIONS_BESIDES_THE_POOL);
    let there = u32::try_from(server.connections).unwrap_or(0);
    findings.push(if pooled {
        let text = format!("an instance takes {needed} of the pooler's, which shares its own with the server among them");
        Finding::good("connections", text)
    } else if needed <= there {
        Finding::good("connections", format!("an instance takes {needed} of the server's {there}; count all instances"))
    } else {
        let text = format!("an instance takes {needed} connections, and the server allows {there}");
        let mend = "lower DATABASE_MAX_CONNECTIONS, or raise the server's max_connections, or the CONNECTION LIMIT of the login \
                    or of the database";
        Finding::wrong("connections", text, mend)
    });
    #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are exact for a long time")]
    let apart = (server.now - unix_seconds() as f64).abs();
    let text = format!("the database's clock is {apart:.0} s from this machine's");
    let mend = "have both machines take their time from NTP";
    findings.push(if apart < CLOCKS_APART_RISKY {
        Finding::good("clocks", "they agree")
    } else if apart < CLOCKS_APART_WRONG {
        Finding::risky("clocks", text, mend)
    } else {
        Finding::wrong("clocks", text, mend)
    });
    findings
}

async fn provider_of(settings: &Settings) -> Finding {
    let about = "provider";
    let issuer = match &settings.auth.issuer {
        Issuer::Disabled => {
            let text = "OIDC_ISSUER_URL is not set: no token is accepted";
            return Finding::wrong(about, text, "set it to the issuer of your identity provider");
        }
        Issuer::Development(_) => return Finding::good(about, "tokens come from `bulkhead dev-token`"),
        Issuer::Provider(provider) => &provider.issuer,
    };
    let auth = Auth::new(&settings.auth);
    if let Err(error) = auth.prepare().await {
        return Finding::wrong(about, error.to_string(), "see SSL_CERT_FILE, and the machine's certificates");
    }
    // A token that nobody has signed: it waits for the first look at the provider.
    tokio::select! {
        () = auth.run() => {}
        _ = auth.verify("a.b.c") => {}
    }
    match auth.key_status() {
        KeyStatus::Fresh | KeyStatus::Stale => Finding::good(about, format!("{issuer} hands out its keys")),
        KeyStatus::Unavailable | KeyStatus::Disabled => {
            let text = format!("the keys of {issuer} cannot be fetched; the lines before say why");
            Finding::wrong(about, text, "see OIDC_ISSUER_URL, and HTTPS_PROXY where there is a proxy")
        }
    }
}
