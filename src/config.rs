//! Every setting: its environment variable, its default, its validation.
//!
//! [`Settings::read`] reads all of them and reports every error at once, by variable name. A variable that is set to an
//! empty text counts as not set. A secret may come from a file instead, which the variable `NAME_FILE` names. Nothing
//! here prints a secret: of a database URL, it prints only the server and the database.

mod audit;
mod auth;
mod choices;
mod database_url;
mod env_reader;
mod form;
mod log_level;
mod misspelt;
mod origin;
mod proxies;
mod schema;
#[cfg(test)]
mod tests;
mod traces;

pub use audit::AuditSettings;
pub use auth::{ApiToken, AuthSettings, DevelopmentKey, Issuer, Provider, TokenType};
pub(crate) use auth::{COOKIE_SECRET_BYTES_MIN, KEY_AGE_SECONDS_MAX};
pub use choices::{Environment, LogFormat, MigrateOnStart};
pub use database_url::DatabaseUrl;
use database_url::Unverified;
pub(crate) use database_url::server;
pub use env_reader::ResolvedVariable;
pub use misspelt::Misspelt;
pub use origin::Origin;
pub use proxies::{Forwarding, TrustedProxies};
pub use traces::{Sampler, TraceSettings};

use env_reader::EnvReader;
use form::Form;
use log_level::LogLevel;
use origin::Origins;
use reqwest::Certificate;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tracing_subscriber::filter::Targets;

/// The upper bound of both rate limit settings. The limiter counts in nanoseconds; a burst of some hundred million at a
/// rate of one a minute is more nanoseconds than it can hold.
const RATE_LIMIT_MAX: u32 = 1_000_000;

/// The most that PostgreSQL takes for its max_connections
/// (<https://www.postgresql.org/docs/current/view-pg-settings.html> shows it, as `max_val`).
const CONNECTIONS_MAX: u32 = 262_143;

const PORT: Form = Form::Number(0, 65535);

/// The settings of the process. Read once, at the start; never changed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The kind of deployment. It decides defaults, and which settings are refused.
    pub environment: Environment,
    /// The address to listen on. The default, `::`, takes IPv4 and IPv6.
    pub host: IpAddr,
    /// The TCP port to listen on; 0 takes any free one.
    pub port: u16,
    /// The TCP port that serves metrics; none is served without one.
    pub metrics_port: Option<u16>,
    /// Where traces are sent, and how many; none are without it.
    pub traces: Option<TraceSettings>,
    /// The database that requests use.
    pub database: DatabaseUrl,
    /// The connection that migrations use: direct, and with the right to change the schema.
    pub migration_database: DatabaseUrl,
    /// The variable that names `migration_database`, for error texts: MIGRATION_DATABASE_URL, or DATABASE_URL without it.
    pub migration_database_variable: &'static str,
    /// Whether the database may be another machine that need not prove who it is, also in production.
    pub database_allow_unverified: bool,
    /// What `start` does about the schema before it serves.
    pub migrate_on_start: MigrateOnStart,
    /// How long a run of migrations waits for another run to end.
    pub migration_lock_timeout: Duration,
    /// How long a statement of a migration may wait for a table's lock before the migration is tried again (PostgreSQL).
    pub migration_ddl_lock_timeout: Duration,
    /// How long a statement of a migration may run (PostgreSQL).
    pub migration_statement_timeout: Duration,
    /// Whether a schema may hold applied migrations that this build lacks and that are older than its newest.
    pub migration_allow_unknown: bool,
    /// The most connections that the pool opens.
    pub database_max_connections: u32,
    /// How long a request waits for a connection, and the start for the database.
    pub database_acquire_timeout: Duration,
    /// How long one statement may run (PostgreSQL).
    pub database_statement_timeout: Duration,
    /// Whose tokens are accepted, and the rules for them.
    pub auth: AuthSettings,
    /// What the checkpoints of the audit log are signed with, how often they are made, and where they are sent.
    pub audit: AuditSettings,
    /// What is logged: a level, and levels for single targets, as in `info,sqlx=debug`.
    pub log_level: Targets,
    /// The form of a log line.
    pub log_format: LogFormat,
    /// The commit that the image was built from, as the image states it.
    pub source_revision: Option<String>,
    /// Whether `/docs` and `/openapi.json` are served.
    pub docs_enabled: bool,
    /// The origins whose scripts may read responses, and to which a logout may send a browser.
    pub allowed_origins: Vec<Origin>,
    /// The proxies whose headers are trusted for the client's address and the request's id.
    pub trusted_proxies: TrustedProxies,
    /// The most requests that are handled at once, without those to health endpoints.
    pub max_concurrent_requests: u32,
    /// The most of them from one client address.
    pub max_concurrent_requests_per_client: u32,
    /// The most open connections.
    pub max_connections: u32,
    /// How long a request may take until its response is written.
    pub request_timeout: Duration,
    /// The longest request body, in bytes.
    pub max_body_bytes: u32,
    /// The longest metadata of a document, in bytes as the client sends it.
    pub max_metadata_bytes: u32,
    /// The most bytes of rows on a page of a list. A page has at least one row, however long that is.
    pub max_page_bytes: u32,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// The steady rate of requests per minute from one client address; 0 means no limit.
    pub rate_limit_per_minute: u32,
    /// How many requests one client address may make at once.
    pub rate_limit_burst: u32,
    /// How long the process still accepts requests after the signal to stop. Readiness is 503 during that time, so that a
    /// load balancer notices.
    pub shutdown_delay: Duration,
    /// How long the requests in progress may take after that.
    pub shutdown_drain: Duration,
}

/// All errors of the configuration. Each is one line, which starts with the variable to change.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Settings {
    /// Whether the origin of this URL is one of the allowed origins.
    #[must_use]
    pub fn allows_page(&self, url: &str) -> bool {
        Origin::of(url).is_some_and(|origin| self.allowed_origins.contains(&origin))
    }

    /// What is accepted and may still be a mistake: one line each, which starts with the variable to change.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let databases =
            [("DATABASE_URL", &self.database), (self.migration_database_variable, &self.migration_database)];
        let mut warnings = Vec::new();
        for (variable, database) in databases {
            let silent = self.environment == Environment::Development || self.database_allow_unverified;
            let plain = database.unverified().filter(|unverified| unverified.plain_text && !silent);
            if let Some(Unverified { mode, host, .. }) = plain {
                warnings.push(format!(
                    "{variable}: data may go to {host} in plain text (sslmode={mode}): with sslmode=verify-full it is encrypted, \
                     and the server proves who it is"
                ));
            }
        }
        warnings.dedup();
        warnings
    }

    /// Reads the environment of the process.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(&|name| std::env::var_os(name)).0
    }

    /// Reads all settings through `lookup`. Returns them, or all errors, and the list of all variables.
    pub fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> (Result<Self, ConfigError>, Vec<ResolvedVariable>) {
        let mut reader = EnvReader::new(lookup);

        let environment = reader.choice("ENVIRONMENT", Environment::Development);
        let development = environment == Environment::Development;
        let log_format = if development { LogFormat::Pretty } else { LogFormat::Json };
        let embedded = development.then_some("sqlite://bulkhead.db?mode=rwc");
        let authorities = authorities(&mut reader);
        let unverified = reader.flag("DATABASE_ALLOW_UNVERIFIED", false);
        // Whoever gives authorities that cannot be read wants proof, and gets one error.
        let given = authorities.is_some() || !reader.is_set("DATABASE_CA");
        let proof = Proof { authorities, demanded: environment == Environment::Production && !unverified && given };
        let database = proof.of(&mut reader, "DATABASE_URL", embedded);
        if database.is_none() && !reader.is_set("DATABASE_URL") {
            reader.error("DATABASE_URL", &format!("is required when ENVIRONMENT={environment}"));
        }
        let own = proof.of(&mut reader, "MIGRATION_DATABASE_URL", None);
        let migration_database_variable = if own.is_some() { "MIGRATION_DATABASE_URL" } else { "DATABASE_URL" };
        let migration_database = own.or_else(|| database.clone());
        let max_concurrent_requests = reader.at_least("MAX_CONCURRENT_REQUESTS", 512, 1);
        let per_client = (max_concurrent_requests / 8).max(1);
        let max_body_bytes = reader.at_least("MAX_BODY_BYTES", 1024 * 1024, 1);

        let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let host = reader.value("HOST", unspecified, "an IP address such as :: or 127.0.0.1", Form::Address);
        let port = reader.value("PORT", 8000, "a port from 0 to 65535", PORT);

        let settings = Self {
            environment,
            host,
            port,
            metrics_port: metrics_port(&mut reader, port),
            traces: reader.traces(),
            database: database.unwrap_or_else(DatabaseUrl::placeholder),
            migration_database: migration_database.unwrap_or_else(DatabaseUrl::placeholder),
            migration_database_variable,
            database_allow_unverified: unverified,
            migrate_on_start: reader.choice("MIGRATE_ON_START", MigrateOnStart::Apply),
            migration_lock_timeout: reader.seconds("MIGRATION_LOCK_TIMEOUT_SECONDS", 300, 1),
            migration_ddl_lock_timeout: reader.seconds("MIGRATION_DDL_LOCK_TIMEOUT_SECONDS", 5, 1),
            migration_statement_timeout: reader.seconds("MIGRATION_STATEMENT_TIMEOUT_SECONDS", 3600, 1),
            migration_allow_unknown: reader.flag("MIGRATION_ALLOW_UNKNOWN", false),
            database_max_connections: reader.within("DATABASE_MAX_CONNECTIONS", 10, 1..=CONNECTIONS_MAX),
            database_acquire_timeout: reader.seconds("DATABASE_ACQUIRE_TIMEOUT_SECONDS", 10, 1),
            database_statement_timeout: reader.seconds("DATABASE_STATEMENT_TIMEOUT_SECONDS", 30, 1),
            auth: reader.auth(environment),
            audit: reader.audit(environment),
            log_level: reader.parsed("LOG_LEVEL", LogLevel::default(), Form::Like(log_level::PATTERN)).into(),
            log_format: reader.choice("LOG_FORMAT", log_format),
            source_revision: reader.optional("SOURCE_REVISION", Form::Text),
            docs_enabled: reader.flag("DOCS_ENABLED", environment != Environment::Production),
            allowed_origins: allowed_origins(&mut reader, environment),
            trusted_proxies: reader.parsed("TRUSTED_PROXIES", TrustedProxies::default(), Form::Like(proxies::LIST)),
            max_concurrent_requests,
            max_concurrent_requests_per_client: reader.at_least("MAX_CONCURRENT_REQUESTS_PER_CLIENT", per_client, 1),
            max_connections: reader.at_least("MAX_CONNECTIONS", 4096, 1),
            request_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS", 30, 1),
            max_body_bytes,
            max_metadata_bytes: max_metadata_bytes(&mut reader, max_body_bytes),
            max_page_bytes: reader.at_least("MAX_PAGE_BYTES", 1024 * 1024, 1),
            body_timeout: reader.seconds("BODY_TIMEOUT_SECONDS", 5, 1),
            rate_limit_per_minute: reader.within("RATE_LIMIT_PER_MINUTE", 600, 0..=RATE_LIMIT_MAX),
            rate_limit_burst: reader.within("RATE_LIMIT_BURST", 100, 1..=RATE_LIMIT_MAX),
            // Nobody sends a developer's process further requests, or waits for it.
            shutdown_delay: reader.seconds(
                "SHUTDOWN_DELAY_SECONDS",
                if environment == Environment::Development { 0 } else { 5 },
                0,
            ),
            shutdown_drain: reader.seconds("SHUTDOWN_DRAIN_SECONDS", 30, 0),
        };
        let EnvReader { errors, variables, .. } = reader;
        (if errors.is_empty() { Ok(settings) } else { Err(ConfigError(errors)) }, variables)
    }
}

/// The certificates of the authorities that databases prove themselves with, in PEM.
fn authorities(reader: &mut EnvReader) -> Option<String> {
    let (pem, source) = reader.certificates("DATABASE_CA")?;
    // What it takes for certificates is what follows the marks; a damaged one fails at the connection.
    match Certificate::from_pem_bundle(pem.as_bytes()) {
        Ok(certificates) if !certificates.is_empty() => Some(pem),
        _ => {
            let variable = if source == "file" { "DATABASE_CA_FILE" } else { "DATABASE_CA" };
            reader.error(variable, "holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----");
            None
        }
    }
}

/// How databases have to prove who they are.
struct Proof {
    authorities: Option<String>,
    /// Whether one on another machine has to.
    demanded: bool,
}

impl Proof {
    /// The database that a variable names.
    fn of(&self, reader: &mut EnvReader, variable: &'static str, default: Option<&str>) -> Option<DatabaseUrl> {
        let mut database = reader.database(variable, default)?;
        if let Some(authorities) = &self.authorities {
            database = match database.with_authorities(authorities) {
                Ok(database) => database,
                Err(mode) => {
                    reader.error(
                        variable,
                        &format!("has sslmode={mode}, but DATABASE_CA is set: set sslmode=verify-full"),
                    );
                    return None;
                }
            };
        }
        if let Some(Unverified { mode, host, .. }) = database.unverified().filter(|_| self.demanded) {
            let error = format!(
                "{host} is another machine, which need not prove who it is with sslmode={mode}: set sslmode=verify-full, or \
                 DATABASE_ALLOW_UNVERIFIED=true if nobody else can be on the network between"
            );
            reader.error(variable, &error);
        }
        Some(database)
    }
}

/// 0 is for no port, as it would be any free one, which nobody could tell a collector beforehand.
fn metrics_port(reader: &mut EnvReader, port: u16) -> Option<u16> {
    let metrics_port: u16 = reader.value("METRICS_PORT", 0, "a port from 1 to 65535, or 0 for no metrics", PORT);
    if metrics_port != 0 && metrics_port == port {
        reader.error("METRICS_PORT", "must be another port than PORT: metrics are not for the public");
    }
    (metrics_port != 0).then_some(metrics_port)
}

/// Metadata is part of a body, so its limit must not exceed the body's.
fn max_metadata_bytes(reader: &mut EnvReader<'_>, max_body_bytes: u32) -> u32 {
    let max = reader.at_least("MAX_METADATA_BYTES", max_body_bytes.min(64 * 1024), 2);
    if max > max_body_bytes {
        reader.error("MAX_METADATA_BYTES", &format!("must not exceed MAX_BODY_BYTES, {max_body_bytes}"));
    }
    max
}

fn allowed_origins(reader: &mut EnvReader<'_>, environment: Environment) -> Vec<Origin> {
    let origins = reader.parsed("ALLOWED_ORIGINS", Origins::by_default(environment), Form::Like(origin::LIST));
    if let Some(plain) = origins.insecure().filter(|_| environment == Environment::Production) {
        reader.error("ALLOWED_ORIGINS", &format!("{plain} must be https when ENVIRONMENT=production"));
    }
    origins.0
}
