//! `bulkhead database`: prepares a database for the API.

use super::Failure;
use super::migrate::Migrate;
use super::table::print_line;
use super::tenant::operate;
use crate::administration::{self, Prepared, Unfit};
use crate::config::Settings;
use bulkhead_migrator::Migrations;
use clap::Subcommand;

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Database {
    /// Make the login of DATABASE_URL, which may do what the API does and nothing else, and apply pending migrations
    ///
    /// The login of MIGRATION_DATABASE_URL does this: it needs the right to make roles, and owns the tables. A login that is there
    /// already gets the password of DATABASE_URL. Needs PostgreSQL.
    Prepare,
}

impl Database {
    pub(super) fn run(self, migrations: Migrations) -> Result<(), Failure> {
        let Self::Prepare = self;
        let settings = Settings::from_env()?;
        let (login, password) =
            login(&settings).map_err(|reason| Failure::Refused(format!("DATABASE_URL: {reason}")))?;
        let done =
            operate(&settings, async |connection| administration::prepare_login(connection, &login, &password).await)?;
        let done = match done {
            Ok(Prepared::Made) => format!("made the login {login}"),
            Ok(Prepared::PasswordSet) => format!("the login {login} has the password of DATABASE_URL"),
            Err(unfit) => return Err(Failure::Refused(format!("DATABASE_URL: {}", refused(&login, unfit)))),
        };
        print_line(&done)?;
        Migrate::up().run(migrations)
    }
}

/// The name and the password of the login to prepare, or why there is none.
fn login(settings: &Settings) -> Result<(String, String), String> {
    let Some((login, password)) = settings.database.login() else {
        return Err("SQLite has no logins to prepare: `bulkhead migrate up` is enough".to_owned());
    };
    if settings.migration_database.login().is_none_or(|(other, _)| other == login) {
        return Err(format!(
            "{login} is also the login of MIGRATION_DATABASE_URL: name another one here, which is made, and there the owner of the \
             tables"
        ));
    }
    match password {
        Some(password) if !password.is_empty() => Ok((login, password)),
        _ => Err(format!("it has no password for the login {login}")),
    }
}

fn refused(login: &str, unfit: Unfit) -> String {
    match unfit {
        Unfit::Powerful => format!(
            "the login {login} is a superuser, or may bypass row-level security, replicate, act on the server's files or programs, or make \
             roles or databases, or is a member of a role that does: name another one"
        ),
        Unfit::Owner => format!(
            "the login {login} owns the database, its schema, tables or functions, or is a member of their owner: name another one"
        ),
    }
}
