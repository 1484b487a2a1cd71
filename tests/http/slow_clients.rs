//! Clients that hold what they do not use: half a body, half a head, a connection, an answer that they do not read.

use crate::support::{TestApp, TestClient};
use crate::{bulkhead, ready};
use reqwest::StatusCode;
use std::time::{Duration, Instant};
use test_support::provider::{Endpoint, Fault, Shape};
use test_support::{Database, Proxy, ProxyKind, Server, Signal, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a caller with a good token waits for at most while others misbehave: a second by itself, more where a machine runs many
/// tests at once. Whoever finds no place is a 503 anyway.
const SOON_ENOUGH: Duration = Duration::from_secs(3);

async fn open(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// A connection on which a request of this client has sent half its body.
async fn half_a_body(port: u16, client: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream = open(port).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n{headers}\r\n{{\"code\":"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server closes, or until `enough` has come.
async fn answer(stream: &mut TcpStream, enough: &str) -> String {
    let mut text = String::new();
    let mut buffer = vec![0; 4096];
    while !text.contains(enough) {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            _ => break,
        }
    }
    text
}

/// A client's address that no other one of the test has.
fn address(number: usize) -> String {
    format!("198.51.100.{number}")
}

/// Asks for what takes a good token and the database, and is answered at once.
async fn is_served(caller: &TestClient) {
    let asked = Instant::now();
    let answer = caller.get("users").await;
    answer.assert_status(200);
    assert!(asked.elapsed() < SOON_ENOUGH, "after {:?}", asked.elapsed());
}

/// What a client meets first.
#[derive(Debug, Clone, Copy)]
enum Front {
    Nothing,
    Proxy(ProxyKind),
}

async fn half_bodies_keep_nobody_out(front: Front, with_token: bool) {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let mut server = app.server(&[("TRUSTED_PROXIES", "127.0.0.1"), ("MAX_CONCURRENT_REQUESTS", "64")]).await;
    let proxy = match front {
        Front::Nothing => None,
        Front::Proxy(kind) => {
            let Some(proxy) = Proxy::start(kind, server.port).await else { return };
            Some(proxy)
        }
    };
    let port = proxy.as_ref().map_or(server.port, |proxy| proxy.port);
    server.base = format!("http://127.0.0.1:{port}");
    let caller = TestClient::with_token(&app.http, &server, app.good());
    is_served(&caller).await;
    // Of somebody else: a caller has a share, whatever the address.
    let authorization = format!("Authorization: Bearer {}\r\n", app.token(&app.ada().tenant, "grace", "member"));
    let (path, headers) =
        if with_token { ("/api/v1/documents", authorization.as_str()) } else { ("/api/v1/auth/callback", "") };
    let mut half = Vec::new();
    for number in 0..240 {
        half.push(half_a_body(port, &address(number % 40), path, headers).await);
        if number % 20 == 19 {
            is_served(&caller).await;
        }
    }
    for _ in 0..50 {
        is_served(&caller).await;
    }
    if matches!(front, Front::Nothing) {
        // Those that wait are told why they come to nothing.
        for stream in &mut half {
            let text = answer(stream, "}}").await;
            let late = text.starts_with("HTTP/1.1 408") && text.contains("VAL_006");
            let over_their_share = text.starts_with("HTTP/1.1 429") && text.contains("LIM_001");
            assert!(late || (with_token && over_their_share), "{text}");
        }
    }
}

#[tokio::test]
async fn half_sent_bodies_without_a_token_keep_nobody_out() {
    half_bodies_keep_nobody_out(Front::Nothing, false).await;
}

#[tokio::test]
async fn half_sent_bodies_with_a_token_keep_nobody_out() {
    half_bodies_keep_nobody_out(Front::Nothing, true).await;
}

#[tokio::test]
async fn half_sent_bodies_behind_haproxy_keep_nobody_out() {
    half_bodies_keep_nobody_out(Front::Proxy(ProxyKind::Haproxy), false).await;
}

#[tokio::test]
async fn half_sent_bodies_behind_nginx_keep_nobody_out() {
    half_bodies_keep_nobody_out(Front::Proxy(ProxyKind::Nginx), false).await;
}

#[tokio::test]
async fn body_has_a_time_limit_of_its_own() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app
        .server(&[
            ("BODY_TIMEOUT_SECONDS", "3"),
            ("MAX_CONCURRENT_REQUESTS", "1"),
            ("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "2"),
        ])
        .await;
    let caller = TestClient::with_token(&app.http, &server, app.good());
    let begun = Instant::now();
    let mut late = half_a_body(server.port, "-", "/api/v1/auth/logout", "").await;
    let text = answer(&mut late, "}}").await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("VAL_006"), "{text}");
    assert!(begun.elapsed() >= Duration::from_secs(3), "it was given its time");
    // While one body is on its way, the only place is another's.
    let body = r#"{"redirect_uri":"http://localhost:3000/bye"}"#;
    let mut stream = open(server.port).await;
    let head = format!(
        "POST /api/v1/auth/logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"), "the body is waited for");
    stream.write_all(&body.as_bytes()[..10]).await.unwrap();
    is_served(&caller).await;
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let text = answer(&mut stream, "logout_url").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn a_body_without_a_token_is_short() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.server(&[]).await;
    for (length, status) in [(64 * 1024 + 1, StatusCode::PAYLOAD_TOO_LARGE), (64 * 1024, StatusCode::BAD_REQUEST)] {
        let request = app.http.post(format!("{}/api/v1/auth/callback", server.base));
        let request = request.header("content-type", "application/json").body(vec![b' '; length]);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{length}");
        // Where the body is not read to its end, the client is told not to use the connection again.
        let closes = response.headers().get("connection").is_some_and(|value| value == "close");
        assert_eq!(closes, status == StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn client_has_a_limit_of_concurrent_requests() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "2")];
    let server = app.server(&settings).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream =
            half_a_body(server.port, &address(1), "/api/v1/auth/callback", "Expect: 100-continue\r\n").await;
        assert!(answer(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"), "the body is waited for");
        held.push(stream);
    }
    let ask = async |client: &str| {
        let request = app.http.get(&server.base).header("x-forwarded-for", client);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.headers().contains_key("retry-after"))
    };
    assert_eq!(ask(&address(1)).await, (429, true));
    assert_eq!(ask(&address(2)).await.0, 200, "another client's share is its own");
    drop(held);
    eventually("its share is back", async || (ask(&address(1)).await.0 == 200).then_some(())).await;
}

#[tokio::test]
async fn waiting_logins_keep_nobody_out() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.server(&[("TRUSTED_PROXIES", "127.0.0.1"), ("MAX_CONCURRENT_REQUESTS", "128")]).await;
    let caller = TestClient::with_token(&app.http, &server, app.good());
    is_served(&caller).await;
    let begun = crate::login::begin(&app, &server).await;
    let state = begun.parameters().remove("state").unwrap();
    let callback = async |number: usize| {
        let request = app.http.post(format!("{}/api/v1/auth/callback", server.base));
        let request = request.header("x-forwarded-for", address(number % 40)).header("cookie", &begun.cookie);
        let body = serde_json::json!({"code": "x", "state": state});
        let response = request.json(&body).send().await.unwrap();
        let body: serde_json::Value = response.json().await.unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    };
    app.provider.fail(Fault::Slow);
    let before = app.provider.seen(Endpoint::Token);
    let waiting = async {
        let codes = futures_util::future::join_all((0..240).map(&callback)).await;
        let count = |code: &str| codes.iter().filter(|one| *one == code).count();
        assert_eq!((count("SYS_004"), count("SYS_006")), (64, 176), "64 wait for the provider");
    };
    let others_go_on = async {
        eventually("the provider is asked", async || {
            is_served(&caller).await;
            (app.provider.seen(Endpoint::Token) - before >= 64).then_some(())
        })
        .await;
        for _ in 0..50 {
            is_served(&caller).await;
        }
    };
    tokio::join!(waiting, others_go_on);
    assert_eq!(app.provider.seen(Endpoint::Token) - before, 64);
    // One finds out whether it answers again; no other one waits.
    let trial = callback(1);
    let others = async {
        eventually("the provider is asked", async || (app.provider.seen(Endpoint::Token) - before == 65).then_some(()))
            .await;
        for number in 0..20 {
            let asked = Instant::now();
            assert_eq!(callback(number).await, "SYS_004");
            assert!(asked.elapsed() < SOON_ENOUGH);
        }
        app.provider.heal();
    };
    tokio::join!(trial, others);
    crate::login::log_in(&app, &server).await;
    let lines = server.log().iter().filter(|line| line.contains("login: ")).count();
    assert!(lines <= 65, "a line for what was tried, none for what was refused: {lines}");
}

#[tokio::test]
async fn connections_without_a_request_make_room_for_others() {
    let database = Database::sqlite();
    let server = ready(&database, &[("MAX_CONNECTIONS", "20")]).await;
    let mut idle = Vec::new();
    for number in 0..100 {
        let mut stream = open(server.port).await;
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        }
        idle.push(stream);
        if number % 10 == 9 {
            assert_eq!(server.get("/api/v1/health/live").await.unwrap().0, 200, "after {number}");
        }
    }
    let (first, last) = (idle.remove(0), idle.pop().unwrap());
    for (mut stream, is_open) in [(first, false), (last, true)] {
        let write = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let text = answer(&mut stream, "\r\n\r\n").await;
        assert_eq!(write.is_ok() && text.starts_with("HTTP/1.1 200"), is_open, "{text}");
    }
    let lines = server.log().iter().filter(|line| line.contains("MAX_CONNECTIONS")).count();
    assert_eq!(lines, 1, "{:#?}", server.log());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn health_answers_with_few_open_files() {
    let database = Database::sqlite();
    let limited = ["-c", "ulimit -n 256 && exec \"$0\"", bulkhead().to_str().unwrap()];
    let server = Server::listening(std::path::Path::new("/bin/sh"), &limited, &database, &[]).await;
    server.wait_until_ready().await;
    server.log_line("MAX_CONNECTIONS is 4096", "WARN").await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(open(server.port).await);
    }
    for _ in 0..10 {
        assert_eq!(server.get("/api/v1/health/ready").await.unwrap().0, 200);
    }
    assert!(!server.log().iter().any(|line| line.contains("cannot accept")), "{:#?}", server.log());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let database = Database::sqlite();
    let server = ready(&database, &[("DOCS_ENABLED", "true"), ("REQUEST_TIMEOUT_SECONDS", "2")]).await;
    let mut stream = open(server.port).await;
    // Its own buffer and the server's take some megabytes.
    let asked = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    stream.write_all(asked.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    eventually("the server closes", async || writer.write_all(b"GET").await.err()).await;
    // Whatever it had sent before is there, and no more.
    let mut rest = Vec::new();
    let read = reader.read_to_end(&mut rest).await;
    assert!(read.is_err() || rest.len() < 200 * 10_000, "{} bytes", rest.len());
    assert_eq!(server.get("/api/v1/health/live").await.unwrap().0, 200);
}

#[tokio::test]
async fn half_a_head_does_not_hold_up_a_stop() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[]).await;
    let mut stuck = open(server.port).await;
    stuck.write_all(b"GET /api/v1/health/live HTTP/1.1\r\nHo").await.unwrap();
    assert!(server.get("/api/v1/health/live").await.is_some());
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(Duration::from_secs(5)).await.code(), Some(0));
    assert!(!server.log().iter().any(|line| line.contains("SHUTDOWN_DRAIN_SECONDS")), "{:#?}", server.log());
}

#[tokio::test]
async fn half_a_body_does_not_hold_up_a_stop() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let mut server = app.server(&[("BODY_TIMEOUT_SECONDS", "2")]).await;
    let mut stuck = half_a_body(server.port, "-", "/api/v1/auth/callback", "").await;
    assert!(server.get("/api/v1/health/live").await.is_some());
    server.signal(Signal::TERM);
    let text = answer(&mut stuck, "}}").await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert_eq!(server.ended_within(Duration::from_secs(5)).await.code(), Some(0));
}
