//! What the runner of migrations promises: with real processes, real kills, on real databases.

#![allow(clippy::unwrap_used)]

mod at_once;
mod backfill;
mod commands;
mod crashes;
mod permission;
mod skew;

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use std::fmt::Debug;
use std::path::Path;
use std::process::Output;
use test_support::{Database, SOON, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// The fixtures' first migration.
const FIRST: &str = "m20990101_000001_first";
const SECOND: &str = "m20990101_000002_second";

/// `bulkhead` whose migrations FIXTURE may change.
fn fixture() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fixture"))
}

/// A command on `database`, not yet started.
fn command(database: &Database, fixture_name: &str, arguments: &[&str]) -> Command {
    let environment = [("DATABASE_URL", database.url.as_str()), ("FIXTURE", fixture_name), ("PORT", "0")];
    let mut command = Server::command(fixture(), &environment);
    command.args(arguments);
    command
}

/// Starts a command.
fn spawn(database: &Database, fixture_name: &str, arguments: &[&str]) -> Child {
    command(database, fixture_name, arguments).spawn().unwrap()
}

/// Runs a command to its end, which must come soon.
async fn run(database: &Database, fixture_name: &str, arguments: &[&str]) -> Output {
    let mut child = spawn(database, fixture_name, arguments);
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let all = async { tokio::try_join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr)) };
    let ended = tokio::time::timeout(SOON, all).await;
    assert!(ended.is_ok(), "{arguments:?} does not end: {}", String::from_utf8_lossy(&stderr));
    Output { status: child.wait().await.unwrap(), stdout, stderr }
}

/// Runs a command that must succeed; returns what it printed.
async fn succeed(database: &Database, fixture_name: &str, arguments: &[&str]) -> String {
    let output = run(database, fixture_name, arguments).await;
    assert!(output.status.success(), "{arguments:?} with {fixture_name:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail; returns its exit code and its last line.
async fn fail(database: &Database, fixture_name: &str, arguments: &[&str]) -> (i32, String) {
    let output = run(database, fixture_name, arguments).await;
    assert!(!output.status.success(), "{arguments:?} with {fixture_name:?} succeeds");
    let text = stderr(&output);
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().unwrap_or(-1), text.lines().last().unwrap_or_default().to_owned())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Migrates; once that has been tried in vain and is to be tried again, has what is in its way end.
async fn succeed_when_free<E: Debug>(database: &Database, name: &str, free: impl Future<Output = Result<(), E>>) {
    let mut child =
        command(database, name, &["migrate", "up"]).env("MIGRATION_DDL_LOCK_TIMEOUT_SECONDS", "1").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let tried = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("rolled back, to be tried again") {
                return;
            }
        }
        panic!("it ended");
    };
    tokio::time::timeout(SOON, tried).await.expect("it tries again");
    free.await.unwrap();
    let status = tokio::time::timeout(SOON, child.wait()).await.expect("it ends").unwrap();
    assert!(status.success());
}

/// Makes the table that the fixtures' migrations leave their traces in.
async fn with_seeds(database: &Database) -> DatabaseConnection {
    let connection = database.connect().await;
    connection.execute_unprepared("CREATE TABLE seeds (n int)").await.unwrap();
    connection
}

async fn count(connection: &DatabaseConnection, sql: &str) -> i64 {
    let statement =
        Statement::from_string(connection.get_database_backend(), format!("SELECT count(*) AS n FROM {sql}"));
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
}

/// Both tables of the history, as text.
async fn history(connection: &DatabaseConnection) -> Vec<String> {
    let sql = "SELECT h.version || ' ' || coalesce(m.fingerprint, '') AS line
        FROM seaql_migrations h LEFT JOIN seaql_migrations_meta m ON m.version = h.version ORDER BY 1";
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let rows = connection.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get("", "line").unwrap()).collect()
}
