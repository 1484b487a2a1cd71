//! What a collector of traces is sent, and that nothing which a client sends is part of it.

use crate::metrics::{free_port, scrape, sum};
use crate::support::{TestApp, TestClient, new_document};
use crate::{ready, run, stderr, stdout};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use futures_util::future::join_all;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use reqwest::{Client, Method};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::provider::Shape;
use test_support::{Database, SOON, Signal, eventually, on_migrated_databases};
use tokio::net::TcpListener;

on_migrated_databases!(requests_and_their_statements_are_traced, nothing_of_a_client_is_in_a_trace);

/// What a stop may take where the collector is away: three seconds for it, and what an idle server takes on a noisy machine. One
/// request to a collector that does not answer would take ten.
const STOP: Duration = Duration::from_secs(8);

const AWAY: &str = "traces are lost: the collector did not take them";
const FULL: &str = "traces are lost: as many spans wait as OTEL_BSP_MAX_QUEUE_SIZE says";

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

/// A collector on a port of its own, which takes everything.
struct Collector {
    endpoint: String,
    received: Received,
}

impl Collector {
    async fn start() -> Self {
        let take = async |State(received): State<Received>, headers: HeaderMap, body: Bytes| {
            received.0.lock().unwrap().push((headers, body));
        };
        let received = Received::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(received.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, received }
    }

    /// The settings that have a server send to it at once, then `more`.
    fn settings<'s>(&'s self, more: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
        let own = [("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
        [&own[..], more].concat()
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.received.0.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.bodies().into_iter().map(|body| ExportTraceServiceRequest::decode(body).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The span of the request with this id, once it has come.
    async fn request(&self, id: &str) -> Span {
        eventually("the request's span comes", async || {
            self.spans().into_iter().find(|span| attribute(&span.attributes, "bulkhead.request_id") == id)
        })
        .await
    }

    /// The spans whose parent this one is, once this one's siblings in the queue have come, too.
    fn children(&self, parent: &Span) -> Vec<Span> {
        let spans = self.spans().into_iter();
        spans
            .filter(|span| span.parent_span_id == parent.span_id)
            .inspect(|span| assert_eq!(span.trace_id, parent.trace_id))
            .collect()
    }
}

/// An attribute as a text; empty where there is none.
fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Attribute::StringValue(text)) => text.clone(),
        Some(Attribute::IntValue(number)) => number.to_string(),
        Some(other) => panic!("{key} is {other:?}"),
        None => String::new(),
    }
}

fn names(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

async fn requests_and_their_statements_are_traced(database: Database) {
    let (app, collector) = (TestApp::new(Shape::Plain, database).await, Collector::start().await);
    let more = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2"),
        ("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=eu"),
    ];
    let server = app.server(&collector.settings(&more)).await;
    let caller = TestClient::new(&app, &server, &app.ada().tenant, "ada", "admin");
    let owner = caller.make("users", &json!({"email": "owner@example.org"})).await;
    let made = caller.post("documents", &new_document(&owner["id"])).await;
    let path = format!("documents/{}", made.body["id"].as_str().unwrap());
    let read = caller.get(&path).await;
    read.assert_status(200);

    let span = collector.request(read.header("x-request-id")).await;
    assert_eq!((span.name.as_str(), span.kind()), ("GET /api/v1/documents/{id}", SpanKind::Server));
    assert!(span.parent_span_id.is_empty() && span.trace_id.len() == 16, "{span:?}");
    assert!(span.end_time_unix_nano > span.start_time_unix_nano, "{span:?}");
    let keys: BTreeSet<&str> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    let expected = ["bulkhead.request_id", "http.request.method", "http.response.status_code", "http.route"];
    assert_eq!(keys, expected.into());
    let of = |key: &str| attribute(&span.attributes, key);
    assert_eq!([of("http.request.method"), of("http.response.status_code")], ["GET", "200"]);
    assert_eq!(of("http.route"), "/api/v1/documents/{id}");

    let children = collector.children(&span);
    assert!(names(&children).is_superset(&["BEGIN", "SELECT documents"].into()), "{children:#?}");
    let system = if app.on_postgres() { "postgresql" } else { "sqlite" };
    for child in &children {
        let of = |key: &str| attribute(&child.attributes, key);
        assert_eq!((child.kind(), of("db.system.name").as_str()), (SpanKind::Client, system), "{child:?}");
        let (operation, table) = (of("db.operation.name"), of("db.collection.name"));
        assert_eq!(child.name, [operation.as_str(), &table].join(" ").trim_end(), "{child:?}");
        assert!(child.start_time_unix_nano >= span.start_time_unix_nano, "{child:?}");
        assert!(child.end_time_unix_nano <= span.end_time_unix_nano, "{child:?}");
    }
    let insert = collector.children(&collector.request(made.header("x-request-id")).await);
    assert!(names(&insert).contains("INSERT documents"), "{insert:#?}");

    // Both wait for entries of the audit log, which others write for them.
    for id in [read.header("x-request-id"), made.header("x-request-id")] {
        let span = collector.request(id).await;
        let batch = eventually("a batch links the request", async || {
            let spans = collector.spans().into_iter();
            spans.filter(|batch| batch.name == "audit batch").find(|batch| {
                batch.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&span.trace_id, &span.span_id))
            })
        })
        .await;
        assert!(batch.trace_id != span.trace_id && batch.kind() == SpanKind::Internal, "{batch:?}");
        assert!(!collector.children(&batch).is_empty());
    }

    // Refusals and unknown paths; probes of health are none.
    let refused = caller.get("documents?limit=x").await;
    let unknown = caller.get("nothing").await;
    let span = collector.request(refused.header("x-request-id")).await;
    let of = |key: &str| attribute(&span.attributes, key);
    assert_eq!([of("http.response.status_code"), of("error.type")], ["400", "VAL_003"]);
    assert!(
        span.status.is_none_or(|status| status.code() == StatusCode::Unset),
        "the client's error is not the server's"
    );
    assert_eq!(collector.request(unknown.header("x-request-id")).await.name, "GET");
    server.get("/api/v1/health/ready").await.unwrap();
    assert!(names(&collector.spans()).iter().all(|name| !name.contains("health")));

    let resource = collector.requests()[0].resource_spans[0].resource.clone().unwrap();
    let of = |key: &str| attribute(&resource.attributes, key);
    let said = [of("service.name"), of("service.version"), of("cloud.region"), of("telemetry.sdk.language")];
    assert_eq!(said, ["bulkhead", env!("CARGO_PKG_VERSION"), "eu", "rust"]);
    let headers = collector.received.0.lock().unwrap()[0].0.clone();
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert!(server.log().iter().all(|line| !line.contains("hunter2") && !line.contains("\"level\":\"WARN\"")));
}

/// Also where a proxy is trusted, and passes on what the client sends.
async fn nothing_of_a_client_is_in_a_trace(database: Database) {
    let (app, collector) = (TestApp::new(Shape::Plain, database).await, Collector::start().await);
    let server = app.server(&collector.settings(&[("TRUSTED_PROXIES", "127.0.0.1")])).await;
    let ada = app.ada();
    let secrets = ["maria.lopez@example.org", "maria.lopez%40example.org", "123-45-6789", "SECRETS", "203.0.113.77"];
    let [mail, encoded, number, method, address] = secrets;
    let owner = TestClient::new(&app, &server, &ada.tenant, "owner", "admin");
    let owner = owner.make("users", &json!({"email": mail})).await;
    let subject = format!("auth0|{number}");
    let good = app.token(&ada.tenant, &subject, "admin");
    let strange = app.token(&format!("clinic-{number}"), mail, "admin");
    let document = json!({"owner_id": owner["id"], "filename": format!("{mail}.pdf"), "metadata": {number: mail}});
    let base = &server.base;
    let mut last = String::new();
    for (method, url, token) in [
        (Method::GET, format!("{base}/api/v1/documents/{encoded}"), &good),
        (Method::GET, format!("{base}/api/v1/users?email={encoded}&{number}=1"), &good),
        (Method::GET, format!("{base}/api/v1/users/{}", owner["id"].as_str().unwrap()), &good),
        (Method::GET, format!("{base}/{mail}/{number}?x={encoded}"), &good),
        (Method::from_bytes(method.as_bytes()).unwrap(), format!("{base}/api/v1/users"), &strange),
        (Method::GET, format!("{base}/api/v1/users"), &strange),
        (Method::POST, format!("{base}/api/v1/documents"), &good),
    ] {
        let request = Client::new().request(method, url).bearer_auth(token).json(&document);
        let request = request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let request = request.header("tracestate", format!("x={mail}")).header("baggage", format!("user={mail}"));
        let request = request.header("user-agent", mail).header("x-forwarded-for", address).header("referer", mail);
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().clone_into(&mut last);
    }
    collector.request(&last).await;
    let names = collector.spans().into_iter().map(|span| span.name).collect::<BTreeSet<_>>();
    for name in ["GET", "GET /api/v1/documents/{id}", "OTHER /api/v1/users", "POST /api/v1/documents", "SELECT users"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    let (tenant, user) = (app.tenant.to_string(), owner["id"].as_str().unwrap().to_owned());
    let texts = [&secrets[..], &[&ada.tenant, &tenant, &user, &subject, "clinic-", "127.0.0.1", "maria"]].concat();
    for body in collector.bodies() {
        let holds = |text: &[u8]| body.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text));
        for text in &texts {
            assert!(!holds(text.as_bytes()), "{text} is in {:?}", ExportTraceServiceRequest::decode(body.clone()));
        }
        assert!(!holds(app.tenant.as_bytes()) && !holds(app.tenant.simple().to_string().as_bytes()));
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_names_the_parent() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";
    let traced = format!("00-{TRACE}-{PARENT}-01");
    let (database, collector) = (Database::migrated_sqlite().await, Collector::start().await);
    for trusted in [true, false] {
        let proxies = ("TRUSTED_PROXIES", if trusted { "127.0.0.1" } else { "10.0.0.0/8" });
        let server = ready(&database, &collector.settings(&[proxies])).await;
        let ask = async |parents: &[&str]| {
            let mut request = Client::new().get(&server.base);
            for parent in parents {
                request = request.header("traceparent", *parent);
            }
            request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
        };
        let span = collector.request(&ask(&[&traced]).await).await;
        assert_eq!(hex::encode(&span.trace_id) == TRACE, trusted, "{span:?}");
        assert_eq!(hex::encode(&span.parent_span_id), if trusted { PARENT } else { "" });
        for wrong in [&["nonsense"][..], &["00-0-0-01"], &[&traced, &traced]] {
            let span = collector.request(&ask(wrong).await).await;
            assert!(span.parent_span_id.is_empty(), "{wrong:?}: {span:?}");
        }
        // Whose traces the proxy has not chosen are not sent, and come before the next that is.
        let unchosen = ask(&[&format!("00-{TRACE}-{PARENT}-00")]).await;
        collector.request(&ask(&[]).await).await;
        let sent = collector.spans().iter().any(|span| attribute(&span.attributes, "bulkhead.request_id") == unchosen);
        assert_eq!(sent, !trusted);
    }
}

#[tokio::test]
async fn a_stop_sends_what_waits() {
    let (database, collector) = (Database::migrated_sqlite().await, Collector::start().await);
    let settings = collector.settings(&[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    let mut server = ready(&database, &settings).await;
    server.get("/").await.unwrap();
    assert!(collector.spans().is_empty(), "it waits for the stop");
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(STOP).await.code(), Some(0));
    assert_eq!(names(&collector.spans()), ["GET /"].into());
}

#[tokio::test]
async fn a_share_or_none_of_the_requests_is_traced() {
    let (database, collector) = (Database::migrated_sqlite().await, Collector::start().await);
    let none = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let disabled = [("OTEL_SDK_DISABLED", "true")];
    let off = [("OTEL_TRACES_SAMPLER", "always_off")];
    for off in [&disabled[..], &[("OTEL_TRACES_EXPORTER", "none")], &off, &none] {
        let mut server = ready(&database, &collector.settings(off)).await;
        server.get("/").await.unwrap();
        server.signal(Signal::TERM);
        assert_eq!(server.ended_within(STOP).await.code(), Some(0));
        assert!(collector.bodies().is_empty(), "{off:?}");
    }
}

/// Nobody waits for a collector that closes every connection, or takes what it is sent and does not answer.
#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let database = Database::migrated_sqlite().await;
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let (closing, tries) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicUsize::new(0)));
    let closes = closing.local_addr().unwrap();
    let counted = Arc::clone(&tries);
    tokio::spawn(async move {
        while closing.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for (address, closes) in [(closes, true), (silent.local_addr().unwrap(), false)] {
        let endpoint = format!("http://{address}");
        let settings = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ];
        let mut server = ready(&database, &settings).await;
        let began = Instant::now();
        for _ in 0..200 {
            server.get("/").await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?} for 200 requests", began.elapsed());
        if closes {
            // The first batch is told of; those that follow within a minute are not. One is sent four times at most.
            server.log_line(AWAY, "WARN").await;
            let before = tries.load(Ordering::Relaxed);
            eventually("the next batch is lost, too", async || {
                server.get("/").await.unwrap();
                (tries.load(Ordering::Relaxed) > before + 4).then_some(())
            })
            .await;
            assert_eq!(server.log().iter().filter(|line| line.contains(AWAY)).count(), 1, "{:#?}", server.log());
        }
        server.signal(Signal::TERM);
        assert_eq!(server.ended_within(STOP).await.code(), Some(0));
        if closes {
            // What was lost since then is told of at the stop.
            assert_eq!(server.log().iter().filter(|line| line.contains(AWAY)).count(), 2, "{:#?}", server.log());
        }
    }
}

/// The first four are with the collector, which does not answer, and sixteen wait.
#[tokio::test]
async fn spans_that_find_the_queue_full_are_counted_and_told_of() {
    let database = Database::migrated_sqlite().await;
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let (endpoint, port) = (format!("http://{}", silent.local_addr().unwrap()), free_port());
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ("METRICS_PORT", &port.to_string()),
    ];
    let server = ready(&database, &settings).await;
    let counts = async || {
        let (_, samples) = scrape(port).await;
        let count = |error| sum(&samples, "otel_sdk_processor_span_processed_total", &[("error_type", error)]);
        format!("{} handed on, {} dropped", count(""), count("queue_full"))
    };
    for _ in 0..4 {
        server.get("/").await.unwrap();
    }
    let none = "4 handed on, 0 dropped";
    eventually("the collector is sent some", async || (counts().await == none).then_some(())).await;
    for _ in 0..16 {
        server.get("/").await.unwrap();
    }
    assert_eq!(counts().await, none);
    assert!(server.log().iter().all(|line| !line.contains(FULL)), "{:#?}", server.log());
    for _ in 0..30 {
        server.get("/").await.unwrap();
    }
    assert_eq!(counts().await, "4 handed on, 30 dropped");
    let line = server.log_line(FULL, "WARN").await;
    assert!(line.contains(r#""spans":1"#) && !line.contains("request_id"), "{line}");
    assert_eq!(server.log().iter().filter(|line| line.contains(FULL)).count(), 1, "{:#?}", server.log());
}

#[tokio::test]
async fn a_wait_for_a_connection_has_a_span() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, collector) = (TestApp::new(Shape::Plain, database).await, Collector::start().await);
    let server = app.server(&collector.settings(&[("DATABASE_MAX_CONNECTIONS", "1")])).await;
    let caller = TestClient::new(&app, &server, &app.ada().tenant, "ada", "admin");
    let wait = eventually("a request waits for the connection of another", async || {
        let lists = join_all((0..16).map(|_| caller.get("documents"))).await;
        let mut waits = Vec::new();
        for list in lists {
            list.assert_status(200);
            let span = collector.request(list.header("x-request-id")).await;
            let children = collector.children(&span);
            assert!(names(&children).contains("SELECT documents"), "{children:#?}");
            let waited = children.into_iter().filter(|child| child.name == "connection wait");
            waits.extend(waited.map(|wait| (span.clone(), wait)));
        }
        waits.pop()
    })
    .await;
    let (request, wait) = wait;
    assert_eq!((wait.kind(), wait.attributes.len()), (SpanKind::Internal, 1), "{wait:?}");
    assert_eq!(attribute(&wait.attributes, "db.system.name"), "postgresql");
    assert!(wait.start_time_unix_nano >= request.start_time_unix_nano, "{wait:?}, {request:?}");
    assert!(wait.end_time_unix_nano > wait.start_time_unix_nano, "{wait:?}");
    assert!(wait.end_time_unix_nano <= request.end_time_unix_nano, "{wait:?}, {request:?}");

    // Nobody waits for a connection that is free.
    let server = app.server(&collector.settings(&[])).await;
    let caller = TestClient::new(&app, &server, &app.ada().tenant, "ada", "admin");
    eventually("a request waits for nothing", async || {
        let list = caller.get("documents").await;
        let children = collector.children(&collector.request(list.header("x-request-id")).await);
        assert!(names(&children).contains("SELECT documents"), "{children:#?}");
        (!names(&children).contains("connection wait")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    let database = Database::sqlite();
    let url = ("DATABASE_URL", database.url.as_str());
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://me:hunter2@collector/v1/traces"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
    ] {
        for command in ["start", "config"] {
            let arguments: &[&str] = if command == "start" { &["start"] } else { &["config", "show"] };
            let settings = [url, (name, value), ("PORT", "0")];
            let output = tokio::time::timeout(SOON, run(arguments, &settings)).await.expect("it does not serve");
            let said = [stdout(&output), stderr(&output)].concat();
            assert_eq!(output.status.code(), Some(2), "{name}: {said}");
            assert!(said.contains(&format!("{name}: must be ")) && !said.contains("hunter2"), "{said}");
        }
    }
    let secret = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2");
    let shown = stdout(&run(&["config", "show"], &[url, secret]).await);
    let line = shown.lines().find(|line| line.starts_with(secret.0)).unwrap();
    assert!(line.contains("***  (environment)") && !shown.contains("hunter2"), "{shown}");
}
