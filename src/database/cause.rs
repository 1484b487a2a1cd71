//! Says in plain words why the database could not be used.

use crate::config::{DatabaseUrl, server};
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sea_orm::{DbErr, RuntimeErr};
use std::error::Error;
use std::io::{self, ErrorKind};

/// How std begins the error of a name that does not resolve; the kind of such an error is none of its own
/// (rust-lang/rust, library/std/src/sys/net/connection/socket/unix.rs, `cvt_gai`).
const LOOKUP: &str = "failed to lookup address information: ";

/// What the innermost cause of the error says, where the error is of this database.
pub(crate) fn cause(database: &DatabaseUrl, error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(refusal) = cause.downcast_ref::<Box<dyn DatabaseError>>() {
            return message(refusal.as_ref());
        }
        if let (DatabaseUrl::Postgres(options), Some(error)) = (database, cause.downcast_ref::<io::Error>())
            && let Some(text) = unreachable(options, error)
        {
            return text;
        }
        match source(cause) {
            Some(next) => cause = next,
            None => return cause.to_string(),
        }
    }
}

/// The driver's error is not among the sources of sea-orm's.
fn source<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<DbErr>() {
        Some(
            DbErr::Conn(RuntimeErr::SqlxError(driver))
            | DbErr::Exec(RuntimeErr::SqlxError(driver))
            | DbErr::Query(RuntimeErr::SqlxError(driver)),
        ) => Some(driver.as_ref()),
        _ => error.source(),
    }
}

/// PostgreSQL's message alone: the driver adds the line of the server's own source.
fn message(refusal: &dyn DatabaseError) -> String {
    match refusal.try_downcast_ref::<PgDatabaseError>() {
        Some(refusal) => refusal.message().to_owned(),
        None => refusal.to_string(),
    }
}

/// Why the server cannot be reached; `None` where the error says so by itself.
fn unreachable(options: &PgConnectOptions, error: &io::Error) -> Option<String> {
    let place = match options.get_socket() {
        Some(folder) => format!("{}/.s.PGSQL.{}", folder.display(), options.get_port()),
        None => server(options),
    };
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(format!("connection refused at {place}")),
        ErrorKind::TimedOut => Some(format!("no answer from {place}")),
        // The driver takes a host that is a path for a socket's folder.
        ErrorKind::NotFound if options.get_socket().is_some() || options.get_host().starts_with('/') => {
            Some(format!("there is no socket {place}"))
        }
        // The driver looks for the files for TLS. Another text than PEM may be too long for a file's name.
        ErrorKind::NotFound | ErrorKind::InvalidFilename => Some(
            "no file has the name in sslrootcert, sslcert or sslkey of the URL, or in PGSSLROOTCERT, PGSSLCERT or PGSSLKEY; a PEM \
             text in a variable must begin with -----BEGIN"
                .to_owned(),
        ),
        _ => {
            let text = error.to_string();
            Some(format!("unknown host {}: {}", options.get_host(), text.strip_prefix(LOOKUP)?))
        }
    }
}
