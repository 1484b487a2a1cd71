//! Every setting: its environment variable, its default, its check.
//!
//! [`Settings::read`] looks at all of them and reports every mistake at once, by variable name. A variable that is
//! set to nothing counts as not set. Secrets may come from a file instead, named by the variable `NAME_FILE`.
//! Nothing here prints a secret: a database URL shows as its server and database alone.

mod identity;
mod log_level;
mod misspelt;
mod origin;
mod proxies;

pub(crate) use identity::KEYS_SERVE_AT_MOST;
pub use identity::{ApiToken, DevelopmentKey, Identity, Issuer, Provider};
pub use misspelt::Misspelt;
pub use origin::Origin;
pub use proxies::{Forwarding, TrustedProxies};

use log_level::LogLevel;
use origin::Origins;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tracing_subscriber::filter::Targets;

/// What the process runs with. Made once, at the start; never changed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What kind of deployment this is: decides defaults and what is refused.
    pub environment: Environment,
    /// The address to listen on. The default, `::`, takes IPv4 and IPv6.
    pub host: IpAddr,
    /// The TCP port to listen on; 0 takes any free one.
    pub port: u16,
    /// The database that requests use.
    pub database: DatabaseUrl,
    /// The connection that migrations use: direct, and with the right to change the schema.
    pub migration_database: DatabaseUrl,
    /// The variable that names it, for whoever must change it: MIGRATION_DATABASE_URL, or DATABASE_URL without one.
    pub migration_database_variable: &'static str,
    /// What `start` does about the schema before it serves.
    pub migrate_on_start: MigrateOnStart,
    /// How long a run of migrations waits for another one to end.
    pub migration_lock_timeout: Duration,
    /// How long a migration's statement may wait for a table's lock before the migration is tried again (PostgreSQL).
    pub migration_ddl_lock_timeout: Duration,
    /// How long a migration's statement may run (PostgreSQL).
    pub migration_statement_timeout: Duration,
    /// Whether a schema may hold applied migrations that this build does not have, older than its newest.
    pub migration_allow_unknown: bool,
    /// The most connections the pool opens.
    pub database_max_connections: u32,
    /// How long a request waits for a connection; also how long the start waits for the database to come up.
    pub database_acquire_timeout: Duration,
    /// How long one statement may run (PostgreSQL).
    pub database_statement_timeout: Duration,
    /// Whose tokens are accepted, and how they are judged.
    pub identity: Identity,
    /// What is logged: a level, and levels of their own for some targets, as in `info,sqlx=debug`.
    pub log_level: Targets,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// The commit that the image was built from, as the image itself says.
    pub source_revision: Option<String>,
    /// Whether `/docs` and `/openapi.json` are served.
    pub docs_enabled: bool,
    /// The origins whose scripts may read answers, and to which a browser may be sent back.
    pub allowed_origins: Vec<Origin>,
    /// The proxies that are believed about the client's address and the request's id.
    pub trusted_proxies: TrustedProxies,
    /// The most requests at work at once, health endpoints apart.
    pub max_concurrent_requests: u32,
    /// The most of them that one client address has.
    pub max_concurrent_requests_per_client: u32,
    /// The most open connections.
    pub max_connections: u32,
    /// How long a request may take until its answer is written.
    pub request_timeout: Duration,
    /// The longest request body, in bytes.
    pub max_body_bytes: u32,
    /// The longest metadata of a document, in bytes as it is sent.
    pub max_metadata_bytes: u32,
    /// The most bytes of rows that a page of a list has; one row it has at least.
    pub max_page_bytes: u32,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// Requests a minute that one client address may make in the long run; 0 is no limit.
    pub rate_limit_per_minute: u32,
    /// Requests that one client address may make at once.
    pub rate_limit_burst: u32,
    /// How long to go on accepting after the signal, with readiness already 503, so that a load balancer notices.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take to end after that.
    pub shutdown_drain: Duration,
}

/// What kind of deployment this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine: an embedded database, readable logs, error details in answers.
    Development,
    /// A rehearsal of production.
    Staging,
    /// Real data.
    Production,
}

impl FromStr for Environment {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "development" => Ok(Self::Development),
            "staging" => Ok(Self::Staging),
            "production" => Ok(Self::Production),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        })
    }
}

/// What `start` does about the schema before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrateOnStart {
    /// Applies what is pending.
    Apply,
    /// Changes nothing; waits until the schema fits this build in every respect.
    Verify,
    /// Changes nothing; waits until nothing of this build is pending, and looks at nothing else.
    Off,
}

impl FromStr for MigrateOnStart {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "apply" | "true" => Ok(Self::Apply),
            "verify" => Ok(Self::Verify),
            "off" | "false" => Ok(Self::Off),
            _ => Err(()),
        }
    }
}

impl fmt::Display for MigrateOnStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Verify => "verify",
            Self::Off => "off",
        })
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// Short and coloured, for a terminal.
    Pretty,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err(()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Pretty => "pretty",
        })
    }
}

/// A checked database URL. Displays and debugs with `***` for its user and password, and without its parameters.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// `postgres://user:password@host:port/database`
    Postgres(Box<PgConnectOptions>),
    /// `sqlite://file.db?mode=rwc`
    Sqlite(Box<SqliteConnectOptions>),
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite://FILE?mode=rwc";
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(text).map_err(|error| format!("{FORMS}: {}", root(&error)))?;
                if options.get_database().unwrap_or_default().is_empty() {
                    return Err(format!("{FORMS}: it names no database"));
                }
                Ok(Self::Postgres(Box::new(options)))
            }
            "sqlite" => {
                let options =
                    SqliteConnectOptions::from_str(text).map_err(|error| format!("{FORMS}: {}", root(&error)))?;
                if text.contains(":memory:") || text.contains("mode=memory") {
                    return Err("must be a file: a database in memory would lose its data".to_owned());
                }
                Ok(Self::Sqlite(Box::new(options)))
            }
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// The innermost cause, without the driver's own "error with configuration".
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => write!(
                f,
                "postgres://***@{}:{}/{}",
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
            Self::Sqlite(options) => write!(f, "sqlite://{}", options.get_filename().display()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Every mistake of the configuration, each a line that starts with the variable to change.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// One variable as `config show` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The variable's name.
    pub name: &'static str,
    /// Its value as far as it may be seen, or `(not set)`.
    pub value: String,
    /// Where the value comes from: `environment`, `file` or `default`.
    pub source: &'static str,
}

impl Settings {
    /// Whether the address is one of a page that may call this API.
    #[must_use]
    pub fn allows_page(&self, address: &str) -> bool {
        Origin::of(address).is_some_and(|origin| self.allowed_origins.contains(&origin))
    }

    /// Reads the process's own environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(&|name| std::env::var_os(name)).0
    }

    /// Reads all settings through `lookup`; returns them, or every mistake, and how each variable shows.
    pub fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> (Result<Self, ConfigError>, Vec<Shown>) {
        let mut reader = Reader { lookup, mistakes: Vec::new(), shown: Vec::new() };

        let environment = reader.value("ENVIRONMENT", Environment::Development, "development, staging or production");
        let development = environment == Environment::Development;
        let log_format = if development { LogFormat::Pretty } else { LogFormat::Json };
        let embedded = development.then_some("sqlite://bulkhead.db?mode=rwc");
        let database = reader.database("DATABASE_URL", embedded);
        if database.is_none() && !reader.is_set("DATABASE_URL") {
            reader.mistake("DATABASE_URL", &format!("is required when ENVIRONMENT={environment}"));
        }
        let own = reader.database("MIGRATION_DATABASE_URL", None);
        let migration_database_variable = if own.is_some() { "MIGRATION_DATABASE_URL" } else { "DATABASE_URL" };
        let migration_database = own.or_else(|| database.clone());
        let max_concurrent_requests = reader.at_least("MAX_CONCURRENT_REQUESTS", 512, 1);

        let max_body_bytes = reader.at_least("MAX_BODY_BYTES", 1024 * 1024, 1);
        let settings = Self {
            environment,
            host: reader.value("HOST", IpAddr::V6(Ipv6Addr::UNSPECIFIED), "an IP address such as :: or 127.0.0.1"),
            port: reader.value("PORT", 8000, "a port from 0 to 65535"),
            // Stands in where there is a mistake, with which no settings are returned.
            database: database.clone().unwrap_or_else(DatabaseUrl::nowhere),
            migration_database: migration_database.unwrap_or_else(DatabaseUrl::nowhere),
            migration_database_variable,
            migrate_on_start: reader.value("MIGRATE_ON_START", MigrateOnStart::Apply, "apply, verify or off"),
            migration_lock_timeout: reader.seconds("MIGRATION_LOCK_TIMEOUT_SECONDS", 300, 1),
            migration_ddl_lock_timeout: reader.seconds("MIGRATION_DDL_LOCK_TIMEOUT_SECONDS", 5, 1),
            migration_statement_timeout: reader.seconds("MIGRATION_STATEMENT_TIMEOUT_SECONDS", 3600, 1),
            migration_allow_unknown: reader.value("MIGRATION_ALLOW_UNKNOWN", false, "true or false"),
            database_max_connections: reader.at_least("DATABASE_MAX_CONNECTIONS", 10, 1),
            database_acquire_timeout: reader.seconds("DATABASE_ACQUIRE_TIMEOUT_SECONDS", 10, 1),
            database_statement_timeout: reader.seconds("DATABASE_STATEMENT_TIMEOUT_SECONDS", 30, 1),
            identity: reader.identity(environment),
            log_level: reader.list("LOG_LEVEL", LogLevel::default()).into(),
            log_format: reader.value("LOG_FORMAT", log_format, "json or pretty"),
            source_revision: reader.optional("SOURCE_REVISION"),
            docs_enabled: reader.value("DOCS_ENABLED", environment != Environment::Production, "true or false"),
            allowed_origins: reader.origins(environment),
            trusted_proxies: reader.list("TRUSTED_PROXIES", TrustedProxies::default()),
            max_concurrent_requests,
            max_concurrent_requests_per_client: reader.at_least(
                "MAX_CONCURRENT_REQUESTS_PER_CLIENT",
                (max_concurrent_requests / 8).max(1),
                1,
            ),
            max_connections: reader.at_least("MAX_CONNECTIONS", 4096, 1),
            request_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS", 30, 1),
            max_body_bytes,
            max_metadata_bytes: reader.metadata(max_body_bytes),
            max_page_bytes: reader.at_least("MAX_PAGE_BYTES", 1024 * 1024, 1),
            body_timeout: reader.seconds("BODY_TIMEOUT_SECONDS", 5, 1),
            rate_limit_per_minute: reader.within("RATE_LIMIT_PER_MINUTE", 600, 0..=RATE_LIMIT_MOST),
            rate_limit_burst: reader.within("RATE_LIMIT_BURST", 100, 1..=RATE_LIMIT_MOST),
            shutdown_delay: reader.seconds("SHUTDOWN_DELAY_SECONDS", 0, 0),
            shutdown_drain: reader.seconds("SHUTDOWN_DRAIN_SECONDS", 30, 0),
        };
        let Reader { mistakes, shown, .. } = reader;
        (if mistakes.is_empty() { Ok(settings) } else { Err(ConfigError(mistakes)) }, shown)
    }
}

/// The most requests of one client, a minute or at once: the limiter counts in nanoseconds, and a burst of some hundred
/// million at one a minute is more of them than it can hold.
const RATE_LIMIT_MOST: u32 = 1_000_000;

impl DatabaseUrl {
    fn nowhere() -> Self {
        Self::Sqlite(Box::default())
    }
}

/// Collects what is wrong instead of stopping at the first of it.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
    mistakes: Vec<String>,
    shown: Vec<Shown>,
}

impl Reader<'_> {
    /// The value of `name`, which must be `expected`.
    fn value<T: FromStr + fmt::Display>(&mut self, name: &'static str, default: T, expected: &str) -> T {
        let Some(text) = self.text(name) else {
            self.show(name, default.to_string(), "default");
            return default;
        };
        if let Ok(value) = text.parse::<T>() {
            self.show(name, value.to_string(), "environment");
            return value;
        }
        self.mistake(name, &format!("must be {expected}, not {text:?}"));
        self.show(name, text, "environment");
        default
    }

    fn at_least(&mut self, name: &'static str, default: u32, least: u32) -> u32 {
        let value = self.value(name, default, &format!("a whole number of {least} or more"));
        if value < least {
            self.mistake(name, &format!("must be {least} or more, not {value}"));
        }
        value
    }

    /// A body has to hold it.
    fn metadata(&mut self, max_body_bytes: u32) -> u32 {
        let most = self.at_least("MAX_METADATA_BYTES", max_body_bytes.min(64 * 1024), 2);
        if most > max_body_bytes {
            self.mistake("MAX_METADATA_BYTES", &format!("must not exceed MAX_BODY_BYTES, {max_body_bytes}"));
        }
        most
    }

    fn within(&mut self, name: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let (least, most) = range.into_inner();
        let value = self.value(name, default, &format!("a whole number from {least} to {most}"));
        if !(least..=most).contains(&value) {
            self.mistake(name, &format!("must be {least} to {most}, not {value}"));
        }
        value
    }

    fn seconds(&mut self, name: &'static str, default: u32, least: u32) -> Duration {
        Duration::from_secs(self.at_least(name, default, least).into())
    }

    /// The value of `name`, whose own error says what it must be.
    fn list<T: FromStr<Err = String> + fmt::Display>(&mut self, name: &'static str, default: T) -> T {
        let Some(text) = self.text(name) else {
            self.show(name, default.to_string(), "default");
            return default;
        };
        match text.parse::<T>() {
            Ok(value) => {
                self.show(name, value.to_string(), "environment");
                value
            }
            Err(error) => {
                self.mistake(name, &error);
                self.show(name, "***".to_owned(), "environment");
                default
            }
        }
    }

    fn origins(&mut self, environment: Environment) -> Vec<Origin> {
        let origins = self.list("ALLOWED_ORIGINS", Origins::by_default(environment));
        if let Some(plain) = origins.insecure().filter(|_| environment == Environment::Production) {
            self.mistake("ALLOWED_ORIGINS", &format!("{plain} must be https when ENVIRONMENT=production"));
        }
        origins.0
    }

    fn database(&mut self, name: &'static str, default: Option<&str>) -> Option<DatabaseUrl> {
        let (text, source) = match (self.secret(name), default) {
            (Some((text, source)), _) => (text, source),
            (None, Some(default)) => (default.to_owned(), "default"),
            (None, None) => {
                self.show(name, "(not set)".to_owned(), "default");
                return None;
            }
        };
        match text.parse::<DatabaseUrl>() {
            Ok(url) => {
                self.show(name, url.to_string(), source);
                Some(url)
            }
            Err(error) => {
                self.mistake(name, &error);
                self.show(name, "***".to_owned(), source);
                None
            }
        }
    }

    /// The value of `name`, or of the file that `name_FILE` names, and which of the two it was.
    fn secret(&mut self, name: &'static str) -> Option<(String, &'static str)> {
        let file = format!("{name}_FILE");
        let path = (self.lookup)(&file).filter(|path| !path.is_empty()).map(PathBuf::from);
        let direct = self.text(name);
        match (direct, path) {
            (Some(_), Some(_)) => {
                self.mistake(name, &format!("is set and {file} too: unset one of them"));
                None
            }
            (Some(text), None) => Some((text, "environment")),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Some((text.trim_end_matches(['\r', '\n']).to_owned(), "file")),
                Err(error) => {
                    self.mistakes.push(format!("{file}: cannot read {}: {error}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        let text = value.into_string().ok();
        if text.is_none() {
            self.mistake(name, "is not valid UTF-8");
        }
        text
    }

    fn is_set(&self, name: &str) -> bool {
        let set = |name: &str| (self.lookup)(name).is_some_and(|value| !value.is_empty());
        set(name) || set(&format!("{name}_FILE"))
    }

    fn mistake(&mut self, name: &'static str, what: &str) {
        self.mistakes.push(format!("{name}: {what}"));
    }

    fn show(&mut self, name: &'static str, value: String, source: &'static str) {
        self.shown.push(Shown { name, value, source });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Result<Settings, ConfigError>, Vec<Shown>) {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::read(&move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn an_empty_environment_gives_a_working_development_set_up() {
        let settings = read(&[]).0.unwrap();
        assert_eq!(settings.environment, Environment::Development);
        assert_eq!(settings.database.to_string(), "sqlite://bulkhead.db");
        assert_eq!((settings.host.to_string().as_str(), settings.port), ("::", 8000));
        assert!(settings.docs_enabled);
    }

    #[test]
    fn every_mistake_is_reported_at_once_by_variable_name() {
        let error = read(&[
            ("ENVIRONMENT", "prod"),
            ("PORT", "80000"),
            ("HOST", "localhost"),
            ("DATABASE_URL", "mysql://user:hunter2@host/db"),
            ("MIGRATE_ON_START", "maybe"),
            ("DATABASE_MAX_CONNECTIONS", "0"),
            ("LOG_FORMAT", "xml"),
        ])
        .0
        .unwrap_err();
        let named: Vec<&str> = error.0.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            named,
            [
                "ENVIRONMENT",
                "DATABASE_URL",
                "HOST",
                "PORT",
                "MIGRATE_ON_START",
                "DATABASE_MAX_CONNECTIONS",
                "LOG_FORMAT"
            ]
        );
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn outside_development_a_database_must_be_named() {
        for environment in ["staging", "production"] {
            let error = read(&[("ENVIRONMENT", environment)]).0.unwrap_err();
            assert_eq!(error.to_string(), format!("DATABASE_URL: is required when ENVIRONMENT={environment}"));
        }
    }

    #[test]
    fn a_rate_that_the_limiter_cannot_count_is_refused() {
        for name in ["RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_BURST"] {
            assert!(read(&[(name, "1000000")]).0.is_ok());
            let error = read(&[(name, "1000001")]).0.unwrap_err().to_string();
            assert!(error.starts_with(name) && error.ends_with("to 1000000, not 1000001"), "{error}");
        }
    }

    #[test]
    fn metadata_is_no_longer_than_a_body() {
        let bounds = |pairs: &[(&str, &str)]| read(pairs).0.map(|settings| settings.max_metadata_bytes);
        assert_eq!(bounds(&[]).unwrap(), 65_536);
        assert_eq!(bounds(&[("MAX_BODY_BYTES", "1000")]).unwrap(), 1000, "the default follows");
        assert_eq!(bounds(&[("MAX_BODY_BYTES", "1000"), ("MAX_METADATA_BYTES", "1000")]).unwrap(), 1000);
        let error = bounds(&[("MAX_BODY_BYTES", "1000"), ("MAX_METADATA_BYTES", "1001")]).unwrap_err();
        assert_eq!(error.to_string(), "MAX_METADATA_BYTES: must not exceed MAX_BODY_BYTES, 1000");
    }

    #[test]
    fn a_variable_set_to_nothing_counts_as_not_set() {
        assert_eq!(read(&[("PORT", ""), ("DATABASE_URL", "")]).0.unwrap().port, 8000);
    }

    #[test]
    fn a_secret_may_come_from_a_file_but_not_from_both() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://me:hunter2@db.internal/app\n").unwrap();
        let path = file.path().to_str().unwrap();
        let settings = read(&[("DATABASE_URL_FILE", path)]).0.unwrap();
        assert_eq!(settings.database.to_string(), "postgres://***@db.internal:5432/app");
        let error = read(&[("DATABASE_URL_FILE", path), ("DATABASE_URL", "sqlite://other.db")]).0.unwrap_err();
        assert_eq!(error.to_string(), "DATABASE_URL: is set and DATABASE_URL_FILE too: unset one of them");
        let error = read(&[("DATABASE_URL_FILE", "/nowhere")]).0.unwrap_err();
        assert!(error.to_string().starts_with("DATABASE_URL_FILE: cannot read /nowhere"), "{error}");
    }

    #[test]
    fn a_browser_is_sent_only_to_an_origin_that_equals_an_allowed_one() {
        let production = [("ENVIRONMENT", "production"), ("DATABASE_URL", "sqlite://x.db")];
        let settings = read(&[production[0], production[1], ("ALLOWED_ORIGINS", "https://a.org, https://b.org:8443")]);
        let settings = settings.0.unwrap();
        let allows = |url: &str| settings.allows_page(url);
        assert!(allows("https://a.org/bye?x=1") && allows("https://a.org") && allows("https://b.org:8443/"));
        for other in
            ["http://a.org/", "https://a.org.evil.net/", "https://a.org@evil.net/", "https://me@a.org/", "data:,x"]
        {
            assert!(!allows(other), "{other}");
        }
        assert!(read(&production).0.unwrap().allowed_origins.is_empty(), "no defaults outside development");
        assert!(!read(&[]).0.unwrap().allowed_origins.is_empty());
        let error = read(&[production[0], production[1], ("ALLOWED_ORIGINS", "http://a.org")]).0.unwrap_err();
        assert_eq!(error.to_string(), "ALLOWED_ORIGINS: http://a.org must be https when ENVIRONMENT=production");
    }

    #[test]
    fn no_way_of_printing_settings_shows_a_password() {
        let (settings, shown) = read(&[("DATABASE_URL", "postgresql://me:hunter2@db/app?sslkey=hunter2")]);
        let settings = settings.unwrap();
        for text in [format!("{settings:?}"), format!("{shown:?}"), settings.database.to_string()] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
