//! Whether a connection goes through a pooler, and what of a session it keeps. Told from what the connection does: PgBouncer
//! says its version on its own console alone (pgbouncer.org/usage.html, "Admin console").

use crate::config::DatabaseUrl;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{self, ConnectOptions, Connection, Executor, Row};
use sea_orm::{DbErr, RuntimeErr};
use std::io;
use std::time::Duration;

/// How often both connections are asked, in turn.
const ROUNDS: usize = 3;

/// Nothing has this setting. PostgreSQL takes any name with a dot at the start of a session
/// (postgresql.org/docs/current/runtime-config-custom.html). A pooler refuses it, or keeps it to itself
/// (pgbouncer.org/config.html, "ignore_startup_parameters").
const MARK: [(&str, &str); 1] = [("app.route", "direct")];

/// The way of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the server, or by what passes on all that it gets.
    Direct,
    /// By a pooler that gives each connection a session of its own, for as long as it is open.
    Sessions,
    /// By a pooler that gives a connection a session for each transaction.
    Transactions {
        /// What becomes of statements that are prepared once and used in later transactions, where that fails.
        unprepared: Option<String>,
    },
}

impl Route {
    /// Asks by two connections of its own; `None` with SQLite.
    pub async fn look(database: &DatabaseUrl, timeout: Duration) -> Result<Option<Self>, DbErr> {
        let DatabaseUrl::Postgres(options) = database else { return Ok(None) };
        let options = super::quiet(options.as_ref().clone().application_name("bulkhead doctor"));
        let no_answer = || sqlx::Error::Io(io::Error::from(io::ErrorKind::TimedOut));
        let found = tokio::time::timeout(timeout, route(&options)).await.unwrap_or_else(|_| Err(no_answer()));
        found.map(Some).map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))
    }
}

async fn route(options: &PgConnectOptions) -> Result<Route, sqlx::Error> {
    let mut pair = [options.connect().await?, options.connect().await?];
    let route = if shares_sessions(&mut pair).await? {
        Route::Transactions { unprepared: forgets_statements(&mut pair).await? }
    } else if passes_marks(options).await? {
        Route::Direct
    } else {
        Route::Sessions
    };
    for connection in pair {
        // What is dropped is closed.
        let _ = connection.close().await;
    }
    Ok(route)
}

/// Whether the connections do not keep a process of the server each. They take turns to be first: a pooler that has two sessions and
/// takes them in turn (pgbouncer.org/config.html, "server_round_robin") would give each connection the same one every time.
async fn shares_sessions(pair: &mut [PgConnection; 2]) -> Result<bool, sqlx::Error> {
    let mut seen: [Option<i32>; 2] = [None; 2];
    for round in 0..ROUNDS {
        for at in [round % 2, (round + 1) % 2] {
            let asked = sqlx::raw_sql("SELECT pg_backend_pid()");
            let process = pair[at].fetch_one(asked).await?.try_get(0)?;
            if seen[at].replace(process).is_some_and(|before| before != process) {
                return Ok(true);
            }
        }
        if seen[0] == seen[1] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What comes of statements that each connection prepares under the same name, as the driver does (`sqlx_s_1`), and uses again:
/// `None` where each gets the answer of its own.
async fn forgets_statements(pair: &mut [PgConnection; 2]) -> Result<Option<String>, sqlx::Error> {
    for _ in 0..ROUNDS {
        for (connection, (own, sql)) in pair.iter_mut().zip([(1, "SELECT 1"), (2, "SELECT 2")]) {
            let answer = connection.fetch_one(sqlx::query(sql)).await.and_then(|row| row.try_get::<i32, _>(0));
            match answer {
                Ok(answer) if answer == own => {}
                Ok(_) => return Ok(Some("a statement got the answer of another connection's".to_owned())),
                Err(error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_))) => return Err(error),
                Err(sqlx::Error::Database(error)) => return Ok(Some(error.message().to_owned())),
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
    }
    Ok(None)
}

/// Whether a session has the setting that its connection began with.
async fn passes_marks(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut marked = match options.clone().options(MARK).connect().await {
        // Class 53: no place for one more. 57P: the server stops.
        Err(sqlx::Error::Database(error))
            if !error.code().is_some_and(|code| code.starts_with("53") || code.starts_with("57P")) =>
        {
            return Ok(false);
        }
        connected => connected?,
    };
    let there = sqlx::raw_sql("SELECT current_setting('app.route', true) IS NOT DISTINCT FROM 'direct'");
    let there = marked.fetch_one(there).await?.try_get(0)?;
    let _ = marked.close().await;
    Ok(there)
}
