//! What the process counts, and that nothing which a client sends becomes part of it.

#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use crate::support::{TestApp, TestClient, new_document};
use crate::{ready, run, stderr};
use bulkhead::error::ErrorCode;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Client, Method, StatusCode};
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use test_support::provider::Shape;
use test_support::{Database, Signal, eventually, on_migrated_databases};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

on_migrated_databases!(work_is_counted, nothing_of_a_client_becomes_a_label);

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One line of the text format: `name{label="value"} number`.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The text of the metrics at this port, and its samples.
pub(crate) async fn scrape(port: u16) -> (String, Vec<Sample>) {
    let response = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
    (text, samples)
}

/// No label of ours has a quote, a comma or an escape in it, which is part of what is tested.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.strip_suffix('}').map_or((series, ""), |series| series.split_once('{').unwrap());
    let label = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(!value.contains(['"', '\\']), "{line}");
        (name.to_owned(), value.to_owned())
    };
    let labels = labels.split(',').filter(|text| !text.is_empty()).map(label).collect();
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
}

/// The sum of the series of this name that have all these labels.
pub(crate) fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|is| is == value))
    };
    samples.iter().filter(fits).map(|sample| sample.value).sum()
}

async fn work_is_counted(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    let port = free_port();
    let more = [("METRICS_PORT", &*port.to_string()), ("RATE_LIMIT_PER_MINUTE", "60"), ("RATE_LIMIT_BURST", "20")];
    let server = app.server(&more).await;
    let ada = app.ada();
    let caller = TestClient::new(&app, &server, &ada.tenant, &ada.subject, "admin");
    let owner = caller.make("users", &json!({"email": "owner@example.org"})).await;
    let document = caller.make("documents", &new_document(&owner["id"])).await;
    for _ in 0..3 {
        caller.get(&format!("documents/{}", document["id"].as_str().unwrap())).await.assert_status(200);
    }
    caller.get("documents?limit=x").await.assert_error(400, "VAL_003");
    let stranger = Client::new();
    let refused = async || stranger.get(format!("{}/nope", server.base)).send().await.unwrap().status() == 429;
    while !refused().await {}

    let (text, samples) = scrape(port).await;
    let requests = |route: &str, method: &str, status: &str| {
        let labels = [("http_route", route), ("http_request_method", method), ("http_response_status_code", status)];
        sum(&samples, "http_server_request_duration_seconds_count", &labels)
    };
    assert_eq!(requests("/api/v1/documents/{id}", "GET", "200"), 3.0, "{text}");
    assert_eq!(requests("/api/v1/documents", "POST", "201"), 1.0, "{text}");
    assert_eq!(requests("/api/v1/documents", "GET", "400"), 1.0, "{text}");
    assert!(requests("unmatched", "GET", "404") >= 1.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_http_errors_total", &[("code", "VAL_003")]), 1.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_http_refusals_total", &[("limit", "rate")]), 1.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_http_refusals_total", &[("limit", "client")]), 0.0, "{text}");
    assert_eq!(sum(&samples, "http_server_active_requests", &[]), 0.0, "{text}");
    for operation in ["BEGIN", "COMMIT", "SELECT", "INSERT"] {
        let count = sum(&samples, "db_client_operation_duration_seconds_count", &[("db_operation_name", operation)]);
        assert!(count >= 1.0, "{operation}: {text}");
    }
    let waits = sum(&samples, "db_client_connection_wait_time_seconds_count", &[]);
    assert_eq!(waits >= 1.0, app.on_postgres(), "{text}");
    assert!(sum(&samples, "db_client_connection_count", &[]) >= 1.0, "{text}");
    assert_eq!(sum(&samples, "db_client_connection_max", &[]), 10.0, "{text}");
    // A document made, three read, and a refusal of the list.
    assert!(sum(&samples, "bulkhead_audit_append_duration_seconds_count", &[]) >= 4.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_audit_queue_length", &[]), 0.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_audit_queue_max", &[]), 1024.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_phase", &[("phase", "serving")]), 1.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_phase", &[]), 1.0, "{text}");
    assert!(sum(&samples, "bulkhead_phase_duration_seconds", &[("phase", "serving")]) > 0.0, "{text}");
    for check in ["process", "database", "schema", "isolation", "auth"] {
        assert_eq!(sum(&samples, "bulkhead_check_passes", &[("check", check)]), 1.0, "{check}: {text}");
    }
    assert_eq!(sum(&samples, "bulkhead_token_cache_lookups_total", &[("outcome", "miss")]), 1.0, "{text}");
    assert!(sum(&samples, "bulkhead_token_cache_lookups_total", &[("outcome", "hit")]) >= 4.0, "{text}");
    assert_eq!(sum(&samples, "bulkhead_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0, "{text}");
    assert!(sum(&samples, "bulkhead_oidc_keys_age_seconds", &[]) < 60.0, "{text}");
    assert!(text.contains("# TYPE bulkhead_oidc_keys_age_seconds gauge"), "{text}");

    if !app.on_postgres() {
        assert_documented(&text, &samples);
    }

    // Not on the public port, and nothing else on its own.
    let public = stranger.get(format!("{}/metrics", server.base)).send().await.unwrap().status();
    // The limit lets one more in each second.
    assert!(public == 429 || public == 404, "{public}");
    for path in ["", "api/v1/documents", "metrics/x"] {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/{path}")).await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

/// Holds the table of docs/metrics.md to what the process says.
fn assert_documented(text: &str, samples: &[Sample]) {
    let mut table = String::from("| metric | kind | labels | what it says |\n|---|---|---|---|\n");
    let mut described = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
        let (what, line) = line.split_once(' ').unwrap();
        let (name, rest) = line.split_once(' ').unwrap();
        described.entry(name).or_insert_with(BTreeMap::new).insert(what, rest.trim_end_matches('.'));
    }
    for (name, said) in described {
        let of_this = |sample: &&Sample| {
            let rest = sample.name.strip_prefix(name);
            rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        };
        let labels: BTreeSet<String> = samples
            .iter()
            .filter(of_this)
            .flat_map(|sample| sample.labels.keys())
            .filter(|label| *label != "le")
            .map(|label| format!("`{label}`"))
            .collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{name}` | {} | {labels} | {} |", said["TYPE"], said["HELP"]).unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = (page.find("| metric |").unwrap(), page.find("\nThis table").unwrap());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, [&page[..begin], &table, &page[end..]].concat()).unwrap();
    } else {
        assert_eq!(page[begin..end], table, "UPDATE_DOCS=1 writes docs/metrics.md anew");
    }
}

/// Everything that a label may say, besides numbers.
fn words_of_labels() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let mut words: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    words.extend(ErrorCode::ALL.iter().map(|code| code.code().to_owned()));
    let others = "/ unmatched GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT OTHER BEGIN COMMIT SELECT INSERT UPDATE \
                  rate client requests idle used hit miss queue_full process database schema isolation auth starting \
                  waiting-for-lock migrating waiting-for-schema serving draining +Inf";
    words.extend(others.split_whitespace().map(str::to_owned));
    words.insert(env!("CARGO_PKG_VERSION").to_owned());
    // The revision, where none is set.
    words.insert(String::new());
    words
}

async fn nothing_of_a_client_becomes_a_label(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    let port = free_port();
    let server = app.server(&[("METRICS_PORT", &port.to_string())]).await;
    let secrets = ("[a-z]{12}", "[0-9]{3}-[0-9]{2}-[0-9]{4}", "[a-z0-9]{4,20}@example\\.org", "[A-Z]{3,10}");
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..24 {
        let (word, number, mail, method) = secrets.new_tree(&mut runner).unwrap().current();
        let subject = format!("auth0|{word}");
        let role = if word.starts_with(|first| first < 'n') { "admin" } else { "viewer" };
        let token = app.token(&app.ada().tenant, &subject, role);
        let strange = app.token(&format!("clinic-{word}"), &mail, "admin");
        let base = &server.base;
        let requests = [
            (Method::GET, format!("{base}/api/v1/documents/{number}"), &token),
            (Method::GET, format!("{base}/api/v1/documents?{word}={number}"), &token),
            (Method::GET, format!("{base}/{word}/{mail}?x={number}"), &token),
            (Method::GET, format!("{base}/api/v1/users?email={mail}"), &strange),
            (Method::from_bytes(method.as_bytes()).unwrap(), format!("{base}/api/v1/{word}"), &strange),
            (Method::POST, format!("{base}/api/v1/documents"), &token),
        ];
        for (method, url, token) in requests {
            let request = Client::new().request(method, url).bearer_auth(token);
            let request = request.header("x-request-id", &number).header("user-agent", &mail).header("host", &word);
            let body = format!(r#"{{"filename":"{word}.pdf","{mail}":"{number}"}}"#);
            request.header("content-type", "application/json").body(body).send().await.unwrap();
        }
    }
    let (text, samples) = scrape(port).await;
    let words = words_of_labels();
    for sample in &samples {
        for (name, value) in &sample.labels {
            let known = words.contains(value) || value.parse::<f64>().is_ok_and(|number| number < 1000.0);
            assert!(known, "{name}={value:?}: {sample:?}");
        }
    }
    assert!(samples.len() > 100 && text.len() < 200_000, "{} series, {} bytes", samples.len(), text.len());
}

#[tokio::test]
async fn its_port_is_not_the_public_one() {
    let database = Database::sqlite();
    let url = ("DATABASE_URL", database.url.as_str());
    let settings = [("PORT", "8123"), ("METRICS_PORT", "8123"), url];
    let output = run(&["config", "show"], &settings).await;
    assert!(!output.status.success());
    assert!(stderr(&output).contains("METRICS_PORT: must be another port than PORT"), "{}", stderr(&output));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let settings = [("METRICS_PORT", &*port), ("HOST", "127.0.0.1"), ("PORT", "0"), url];
    let output = run(&["start"], &settings).await;
    let said = [crate::stdout(&output), stderr(&output)].concat();
    assert!(!output.status.success() && said.contains("METRICS_PORT:") && said.contains("is in use"), "{said}");
}

/// A start that waits can be watched.
#[tokio::test]
async fn a_start_that_waits_serves_metrics() {
    let Some(database) = Database::postgres().await else { return };
    let port = free_port();
    let _server = test_support::Server::listening(
        crate::bulkhead(),
        &["serve"],
        &database,
        &[("METRICS_PORT", &port.to_string())],
    )
    .await;
    eventually("it says what it waits for", async || {
        let (_, samples) = scrape(port).await;
        (sum(&samples, "bulkhead_phase", &[("phase", "waiting-for-schema")]) == 1.0).then_some(())
    })
    .await;
    let (text, samples) = scrape(port).await;
    assert_eq!(sum(&samples, "bulkhead_check_passes", &[("check", "schema")]), 0.0, "{text}");
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

/// Nobody is woken for tenants that are not kept apart where only a lock hides it.
#[tokio::test]
async fn isolation_behind_a_lock_is_no_fault() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let port = free_port();
    let _server = ready(&database, &[("METRICS_PORT", &port.to_string())]).await;
    let isolation = async || {
        let (_, samples) = scrape(port).await;
        let of = |check: &str| {
            let fits = |sample: &&Sample| {
                sample.name == "bulkhead_check_passes" && sample.labels.get("check").is_some_and(|is| is == check)
            };
            samples.iter().find(fits).map(|sample| sample.value)
        };
        assert_eq!((of("database"), of("schema")), (Some(1.0), Some(1.0)));
        of("isolation")
    };
    assert_eq!(isolation().await, Some(1.0));
    let owner = database.connect().await;
    let lock = owner.begin().await.unwrap();
    lock.execute_unprepared("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert_eq!(isolation().await, None);
    lock.rollback().await.unwrap();
    owner.execute_unprepared("ALTER TABLE documents NO FORCE ROW LEVEL SECURITY").await.unwrap();
    eventually("the fault is seen", async || (isolation().await == Some(0.0)).then_some(())).await;
}

/// Until the last request has ended.
#[tokio::test]
async fn a_stop_that_waits_serves_metrics() {
    let (database, port) = (Database::sqlite(), free_port());
    let settings = [("METRICS_PORT", &*port.to_string())];
    let mut server = ready(&database, &settings).await;
    let mut unfinished = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    unfinished.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    // Once another connection is answered, this older one's bytes have been read.
    server.get("/api/v1/health/live").await.unwrap();
    server.signal(Signal::TERM);
    eventually("it takes no connection", async || TcpStream::connect(("127.0.0.1", server.port)).await.err()).await;
    let (text, samples) = scrape(port).await;
    assert_eq!(sum(&samples, "bulkhead_phase", &[("phase", "draining")]), 1.0, "{text}");
    drop(unfinished);
    assert_eq!(server.ended_within(Duration::from_secs(5)).await.code(), Some(0));
}
