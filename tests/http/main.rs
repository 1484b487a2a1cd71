//! Bulkhead from outside: the binary as a process, its answers over HTTP, on SQLite and PostgreSQL.

#![allow(clippy::unwrap_used)]

mod architecture;
mod attacks;
mod audit;
mod backup;
mod bounds;
mod browser;
mod changes;
mod command_line;
mod cors;
mod deploy;
mod docs;
mod doctor;
mod documents;
mod encryption;
mod errors;
mod evidence;
mod faults;
mod forward_proxy;
mod health;
mod idempotency;
mod isolation;
mod last_admin;
mod limits;
mod lists;
mod logging;
mod login;
mod login_in_browser;
mod methods;
mod metrics;
mod operations;
mod operators;
mod pages;
mod partitions;
mod preferences;
mod principal;
mod proxies;
mod redaction;
mod refusals;
mod roles;
mod round_trips;
mod schema;
mod shared_changes;
mod shared_reads;
mod shutdown;
mod slow_clients;
mod start;
mod support;
mod tables;
mod tenant;
mod tenant_life;
mod tokens;
mod traces;
mod users;
mod validation;
mod version;

use std::path::Path;
use std::process::Output;
use test_support::{Database, Server};

/// The binary under test.
fn bulkhead() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bulkhead"))
}

/// Starts the server and waits until it is ready.
async fn ready<'d>(database: &'d Database, environment: &[(&str, &str)]) -> Server<'d> {
    Server::ready(bulkhead(), database, environment).await
}

/// Runs a command to its end.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Server::command(bulkhead(), environment).args(arguments).output().await.unwrap()
}

/// Runs a command, which succeeds: what it prints.
async fn must(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment).await;
    assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// Runs a command on `database` to its end.
async fn run_on(database: &Database, arguments: &[&str]) -> Output {
    run(arguments, &[("DATABASE_URL", &database.url)]).await
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
