//! The address of a database.

use crate::error_chain::root_cause;
use percent_encoding::percent_decode_str;
use sea_orm::sqlx::ConnectOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A valid database URL. Displays and debugs with `***` for its user and password, and without its parameters.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// `postgres://user:password@host:port/database`
    Postgres(Box<PgConnectOptions>),
    /// `sqlite://file.db?mode=rwc`
    Sqlite(Box<SqliteConnectOptions>),
}

/// A database on another machine that need not prove who it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unverified<'u> {
    /// Its `sslmode`.
    pub(super) mode: &'static str,
    pub(super) host: &'u str,
    /// Whether what is sent there may not even be encrypted.
    pub(super) plain_text: bool,
}

impl DatabaseUrl {
    /// Takes the place of a URL that is missing or not valid; the settings are then not returned.
    pub(super) fn placeholder() -> Self {
        Self::Sqlite(Box::default())
    }

    /// The login's name, and its password where there is one (PostgreSQL).
    pub(crate) fn login(&self) -> Option<(String, Option<String>)> {
        let Self::Postgres(options) = self else { return None };
        // The driver hands the password out in a URL alone, and cannot write one for every name and host.
        let writable = options.as_ref().clone().username("login").host("localhost");
        let password = writable
            .to_url_lossy()
            .password()
            .map(|password| percent_decode_str(password).decode_utf8_lossy().into_owned());
        Some((options.get_username().to_owned(), password))
    }

    /// Where another machine need not prove who it is, or what is sent there may even be in plain text.
    pub(super) fn unverified(&self) -> Option<Unverified<'_>> {
        let Self::Postgres(options) = self else { return None };
        let host = options.get_host();
        let (mode, plain_text) = match options.get_ssl_mode() {
            PgSslMode::Disable => ("disable", true),
            // The driver never asks for TLS then (launchbadge/sqlx, sqlx-postgres/src/connection/tls.rs).
            PgSslMode::Allow => ("allow", true),
            // The driver's default: plain text where the server says that it has no TLS.
            PgSslMode::Prefer => ("prefer", true),
            PgSslMode::Require => ("require", false),
            // Whoever has a certificate of the authority may be anyone.
            PgSslMode::VerifyCa => ("verify-ca", false),
            PgSslMode::VerifyFull => return None,
        };
        let elsewhere = options.get_socket().is_none() && is_elsewhere(host);
        elsewhere.then_some(Unverified { mode, host, plain_text })
    }

    /// Has the server prove who it is by a certificate of these authorities, in PEM. Without an `sslmode` of its own, the URL gets
    /// `verify-full`. An error is the mode that asks for no proof.
    pub(super) fn with_authorities(self, pem: &str) -> Result<Self, &'static str> {
        let Self::Postgres(options) = &self else { return Ok(self) };
        let mode = match (self.unverified(), options.get_ssl_mode()) {
            (_, mode @ (PgSslMode::VerifyFull | PgSslMode::VerifyCa)) => mode,
            // On this machine the URL decides.
            (None, _) => return Ok(self),
            // The driver's default, or no more than that.
            (_, PgSslMode::Prefer) => PgSslMode::VerifyFull,
            (Some(unverified), _) => return Err(unverified.mode),
        };
        let options = options.as_ref().clone().ssl_mode(mode).ssl_root_cert_from_pem(pem.as_bytes().to_vec());
        Ok(Self::Postgres(Box::new(options)))
    }
}

/// Whether what is sent to this host leaves the machine without the network's own encryption.
fn is_elsewhere(host: &str) -> bool {
    let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let here = host.starts_with('/') || host == "localhost" || loopback;
    // Railway's private network consists of WireGuard tunnels (docs.railway.com, "How Private Networking Works").
    !here && !host.ends_with(".railway.internal")
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "must be postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite://FILE?mode=rwc";
        // Not the whole chain: the driver's outer error only says that the configuration is wrong.
        let invalid = |error: sea_orm::sqlx::Error| format!("{FORMS}: {}", root_cause(&error));
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "postgres" | "postgresql" => {
                let mut options = PgConnectOptions::from_str(text).map_err(invalid)?;
                // The driver keeps the brackets of an IPv6 address, and then takes it for a name.
                if let Some(address) = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                    options = options.clone().host(address);
                }
                if options.get_database().unwrap_or_default().is_empty() {
                    return Err(format!("{FORMS}: it names no database"));
                }
                Ok(Self::Postgres(Box::new(options)))
            }
            "sqlite" => {
                let options = SqliteConnectOptions::from_str(text).map_err(invalid)?;
                if text.contains(":memory:") || text.contains("mode=memory") {
                    return Err("must be a file: a database in memory would lose its data".to_owned());
                }
                Ok(Self::Sqlite(Box::new(options)))
            }
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// The server's host and port, as a URL writes them.
pub(crate) fn server(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => {
                write!(f, "postgres://***@{}/{}", server(options), options.get_database().unwrap_or_default())
            }
            Self::Sqlite(options) => write!(f, "sqlite://{}", options.get_filename().display()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
