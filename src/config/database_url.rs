//! The address of a database.

use crate::error_chain::root_cause;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use std::fmt;
use std::str::FromStr;

/// A valid database URL. Displays and debugs with `***` for its user and password, and without its parameters.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// `postgres://user:password@host:port/database`
    Postgres(Box<PgConnectOptions>),
    /// `sqlite://file.db?mode=rwc`
    Sqlite(Box<SqliteConnectOptions>),
}

impl DatabaseUrl {
    /// Takes the place of a URL that is missing or not valid; the settings are then not returned.
    pub(super) fn placeholder() -> Self {
        Self::Sqlite(Box::default())
    }
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
                let options = PgConnectOptions::from_str(text).map_err(invalid)?;
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
