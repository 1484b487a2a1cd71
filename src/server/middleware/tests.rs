//! The middleware around slow and failing handlers, which the real server does not have. Over real sockets.

#![allow(clippy::unwrap_used)]

use super::wrap;
use crate::app::AppState;
use crate::auth::Auth;
use crate::config::Settings;
use crate::ids::{TenantId, UserId};
use crate::lifecycle::{Lifecycle, Phase};
use crate::server::listener;
use crate::telemetry::{self, RequestIdentity};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use reqwest::{Client, Response};
use serde_json::Value;
use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower::ServiceExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use uuid::Uuid;

/// `router` within all layers, with its lifecycle and settings.
fn wrapped(
    environment: &[(&'static str, &'static str)],
    router: Router<AppState>,
) -> (Router, Lifecycle, Arc<Settings>) {
    let environment = environment.to_vec();
    let lookup = move |name: &str| {
        let defaults = [("DATABASE_URL", "sqlite://never-opened.db"), ("RATE_LIMIT_PER_MINUTE", "0")];
        environment.iter().chain(&defaults).find(|(key, _)| *key == name).map(|(_, value)| value.into())
    };
    let settings = Arc::new(Settings::read(&lookup).0.unwrap());
    let runner = Arc::new(crate::server::runner(&settings, bulkhead_migration::migrations()));
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Serving);
    let database = crate::database::pool(&settings);
    let auth = Auth::new(&settings.auth);
    let state = AppState::new(Arc::clone(&settings), database, auth, lifecycle.clone(), runner);
    (wrap(router, &state).with_state(state), lifecycle, settings)
}

/// Serves `router` within all layers; returns its URL.
async fn serve(environment: &[(&'static str, &'static str)], router: Router<AppState>) -> String {
    let (router, lifecycle, settings) = wrapped(environment, router);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(listener::serve(socket, router, lifecycle, settings));
    base
}

/// Checks the error body of a response; returns its code.
async fn code(response: Response, status: u16) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["request_id"], id);
    assert!(!body.to_string().contains("-45-"), "{body}");
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// The log lines of this process since the first call, in a server's form. One subscriber for all tests: several ones, on
/// threads of their own, make each other miss spans.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn collecting() -> &'static Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let output = log.clone();
            let lines = telemetry::json_lines(move || output.clone());
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(LevelFilter::INFO).with(lines))
                .unwrap();
            log
        });
        &LOG
    }

    /// The events of the request of this response.
    fn of(&self, response: &Response) -> Vec<Value> {
        let id = response.headers()["x-request-id"].to_str().unwrap();
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(id)).map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn panics() {
    panic!("patient 123-45-6789, joe@example.org\nphone=5551 unwell");
}

#[tokio::test]
async fn a_panic_is_a_500_and_one_redacted_line() {
    let log = Log::collecting();
    // The hook is global, and other tests run meanwhile: their panics go to the usual hook.
    let (usual, here) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == here { telemetry::log_panic(panic) } else { usual(panic) }
    }));
    let mut responses = Vec::new();
    for environment in ["development", "production"] {
        let base = serve(&[("ENVIRONMENT", environment)], Router::new().route("/", get(panics))).await;
        responses.push(reqwest::get(&base).await.unwrap());
    }
    drop(std::panic::take_hook());
    for response in responses {
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let events = log.of(&response);
        let [panic, request] = events.as_slice() else { panic!("one line for each: {events:#?}") };
        assert_eq!((&panic["level"], &panic["message"]), (&"ERROR".into(), &"panicked".into()));
        assert_eq!((&request["message"], &request["status"]), (&"request".into(), &500.into()));
        assert!(panic["location"].as_str().unwrap().contains("middleware/tests.rs:"), "{panic}");
        assert_eq!(panic["panic"], "patient [redacted], [redacted]\nphone=[redacted] unwell");
        assert_eq!(code(response, 500).await, "SYS_003");
    }
}

/// A body that panics when a layer reads its length.
struct Panics;

impl HttpBody for Panics {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        panic!("patient 123-45-6789 unwell");
    }
}

#[tokio::test]
async fn a_panic_in_a_layer_is_a_500() {
    let log = Log::collecting();
    let (router, ..) = wrapped(&[], Router::new().route("/", post(async || ())));
    let request = Request::post("/").header("host", "localhost").body(Body::new(Panics)).unwrap();
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let response = hyper::Response::from_parts(head, body.collect().await.unwrap().to_bytes());
    let response = Response::from(response);
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(log.of(&response).last().unwrap()["status"], 500);
    assert_eq!(code(response, 500).await, "SYS_003");
}

#[tokio::test]
async fn the_access_line_names_a_known_caller() {
    let log = Log::collecting();
    let (tenant_id, user_id) = (Uuid::now_v7(), Uuid::now_v7());
    let known = move |Extension(identity): Extension<RequestIdentity>| async move {
        identity.set(TenantId(tenant_id), Some(UserId(user_id)));
        identity.set(TenantId(user_id), None);
    };
    let base = serve(&[], Router::new().route("/known/{id}", get(known)).route("/unknown", get(async || ()))).await;
    let verb = reqwest::Method::from_bytes(b"JOHN.DOE").unwrap();
    let requests = [
        Client::new().get(format!("{base}/known/77?ssn=77")),
        Client::new().get(format!("{base}/unknown")),
        Client::new().request(verb, format!("{base}/known/77")),
    ];
    let mut lines = Vec::new();
    for request in requests {
        lines.extend(log.of(&request.send().await.unwrap()));
    }
    let [known, unknown, odd] = lines.try_into().unwrap();
    assert_eq!((&known["tenant_id"], &known["user_id"]), (&tenant_id.to_string().into(), &user_id.to_string().into()));
    assert_eq!(
        (&known["route"], &known["method"], &known["status"]),
        (&"/known/{id}".into(), &"GET".into(), &200.into())
    );
    assert_eq!(known["client_ip"], "127.0.0.1");
    assert!(known["duration_ms"].as_f64().unwrap() > 0.0 && known["request_id"].is_string(), "{known}");
    assert_eq!((unknown.get("tenant_id"), unknown.get("user_id")), (None, None));
    assert_eq!((&odd["method"], &odd["status"]), (&"OTHER".into(), &405.into()));
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_a_503() {
    let stuck = async || std::future::pending::<()>().await;
    let base = serve(&[("REQUEST_TIMEOUT_SECONDS", "1")], Router::new().route("/", get(stuck))).await;
    assert_eq!(code(reqwest::get(&base).await.unwrap(), 503).await, "SYS_006");
}

#[tokio::test]
async fn a_streamed_response_has_a_deadline_and_counts_until_its_end() {
    let endless = async || {
        Body::from_stream(futures_util::stream::unfold((), async |()| {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>("x"), ()))
        }))
    };
    let silent = async || Body::from_stream(futures_util::stream::pending::<Result<&str, Infallible>>());
    let routes =
        Router::new().route("/endless", get(endless)).route("/silent", get(silent)).route("/", get(async || ()));
    let settings = [
        ("REQUEST_TIMEOUT_SECONDS", "1"),
        ("MAX_CONCURRENT_REQUESTS", "1"),
        ("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "9"),
    ];
    let base = serve(&settings, routes).await;
    for path in ["endless", "silent"] {
        let begun = std::time::Instant::now();
        let response = reqwest::get(format!("{base}/{path}")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(code(reqwest::get(&base).await.unwrap(), 503).await, "SYS_006", "{path} still counts");
        assert!(response.bytes().await.is_err(), "{path} is cut off, and the client can tell");
        assert!((1..3).contains(&begun.elapsed().as_secs()), "{path}: {:?}", begun.elapsed());
        assert_eq!(reqwest::get(&base).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn beyond_the_concurrency_limit_only_health_is_served() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, release) = (Arc::clone(&begun), Arc::clone(&release));
        move || async move {
            begun.notify_one();
            release.notified().await;
        }
    };
    let routes = Router::new()
        .route("/slow", get(slow))
        .route("/quick", get(async || ()))
        .route("/api/v1/health/x", get(async || ()));
    let base = serve(&[("MAX_CONCURRENT_REQUESTS", "1"), ("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "9")], routes).await;
    let first = tokio::spawn(reqwest::get(format!("{base}/slow")));
    begun.notified().await;
    let refused =
        Client::new().get(format!("{base}/quick")).header("origin", "http://localhost:3000").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(code(refused, 503).await, "SYS_006");
    assert_eq!(reqwest::get(format!("{base}/api/v1/health/x")).await.unwrap().status(), 200);
    release.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(reqwest::get(format!("{base}/quick")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_a_413() {
    let echo = Router::new().route("/", post(async |body: Bytes| body));
    let base = serve(&[("MAX_BODY_BYTES", "3000000")], echo).await;
    for (length, fits) in [(3_000_000, true), (3_000_001, false), (9_000_000, false)] {
        let announced = Client::new().post(&base).body(vec![b'x'; length]);
        let body = reqwest::Body::wrap(http_body_util::StreamBody::new(futures_util::stream::iter(
            vec![b'x'; length]
                .chunks(64 * 1024)
                .map(|part| Ok::<_, io::Error>(Frame::data(Bytes::copy_from_slice(part))))
                .collect::<Vec<_>>(),
        )));
        for request in [announced, Client::new().post(&base).body(body)] {
            let response = request.send().await.unwrap();
            if fits {
                assert_eq!(response.bytes().await.unwrap().len(), length);
            } else {
                assert_eq!(code(response, 413).await, "VAL_004");
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_body_is_a_400() {
    #[derive(serde::Deserialize)]
    struct Input {
        #[allow(dead_code)]
        number: u8,
    }
    let base = serve(&[], Router::new().route("/", post(async |_: Json<Input>| ()))).await;
    let ask =
        |body: &'static str| Client::new().post(&base).header("content-type", "application/json").body(body).send();
    assert_eq!(code(ask("{\"number\":\"123-45-6789\"}").await.unwrap(), 400).await, "VAL_001");
    assert_eq!(code(ask("{123-45-6789").await.unwrap(), 400).await, "VAL_001");
    assert_eq!(code(Client::new().post(&base).body("x").send().await.unwrap(), 415).await, "VAL_005");
}
