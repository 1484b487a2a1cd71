//! How long starts take: many at once over one, and one with nothing pending over a plain connection.
//!
//! `cargo bench --package migration-tests` prints the table of docs/migrations.md. Times are medians, in
//! milliseconds, from exec to the log line that says the server is ready.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use test_support::Database;

const MANY: usize = 32;
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() {
    println!("| | SQLite | PostgreSQL | PostgreSQL over its connection |");
    println!("|---|---|---|---|");
    let mut one = [Vec::new(), Vec::new()];
    let mut many = [Vec::new(), Vec::new()];
    let mut idle = [Vec::new(), Vec::new()];
    let mut connection = Vec::new();
    for _ in 0..ROUNDS {
        for kind in 0..2 {
            let database = empty(kind).await;
            one[kind].push(starts(&database, 1));
            idle[kind].push(starts(&database, 1));
            if kind == 1 {
                connection.push(connect(&database).await);
            }
            many[kind].push(starts(&empty(kind).await, MANY));
        }
    }
    let connection = median(connection);
    let row = |name: &str, times: [Vec<Duration>; 2]| {
        let [sqlite, postgres] = times.map(median);
        println!("| {name} | {sqlite:.1} | {postgres:.1} | {:.1} |", postgres / connection);
        [sqlite, postgres]
    };
    println!("| plain connection | | {connection:.1} | 1.0 |");
    row("start, nothing pending", idle);
    let one = row("start on an empty database", one);
    let many = row(&format!("{MANY} starts at once on an empty database"), many);
    println!("| {MANY} at once over one | {:.1} times | {:.1} times | |", many[0] / one[0], many[1] / one[1]);
}

async fn empty(kind: usize) -> Database {
    if kind == 0 { Database::sqlite() } else { Database::postgres().await.expect("PostgreSQL is installed") }
}

/// Starts that many servers at once; returns how long it took until all were ready.
fn starts(database: &Database, count: usize) -> Duration {
    let begun = Instant::now();
    let mut children: Vec<Child> = (0..count)
        .map(|_| {
            Command::new(env!("CARGO_BIN_EXE_fixture"))
                .env_clear()
                .envs([("DATABASE_URL", database.url.as_str()), ("PORT", "0"), ("LOG_FORMAT", "json")])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready on")), "it is ready before it ends");
    }
    let taken = begun.elapsed();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    taken
}

/// One connection and one statement, from a process that runs already.
async fn connect(database: &Database) -> Duration {
    use sea_orm::ConnectionTrait;
    let begun = Instant::now();
    let connection = database.connect().await;
    connection.execute_unprepared("SELECT 1").await.unwrap();
    let taken = begun.elapsed();
    connection.close().await.unwrap();
    taken
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
