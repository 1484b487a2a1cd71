//! A thousand clients that misbehave, and ten thousand connections: a caller with a good token is answered throughout. Each prints what
//! the caller waited. They need the machine for themselves: scripts/test runs them one after the other.

use crate::bulkhead;
use crate::support::{Serves, TestApp, TestClient};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Write;
use std::time::{Duration, Instant};
use test_support::provider::Shape;
use test_support::{Proxy, ProxyKind, Server, skip};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const CLIENTS: usize = 1000;

/// What 99 of 100 requests of the good caller have to wait at most. They took 670 to 890 ms while `/openapi.json` was written anew for each
/// of those who ask for it, and take a tenth of this.
const PATIENCE: Duration = Duration::from_millis(500);

/// Lets this process, and those that it starts, open so many files; false where that is not allowed.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|most| most >= files);
    if enough && limit.current.is_some_and(|now| now < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..limit }).unwrap();
    }
    if !enough {
        skip(&format!("a process may not open {files} files (ulimit -Hn): attacks in their full numbers"));
    }
    enough
}

/// How the good caller fares.
#[derive(Debug, Default)]
struct Waits(Vec<Duration>);

impl Waits {
    /// Asks for what takes the token and the database, and for readiness.
    async fn ask(&mut self, caller: &TestClient, server: &impl Serves) {
        let begun = Instant::now();
        caller.get("users").await.assert_status(200);
        self.0.push(begun.elapsed());
        assert_eq!(server.json("/api/v1/health/ready").await.0, 200, "readiness");
    }

    #[allow(clippy::print_stdout, reason = "the figures are what it is for")]
    fn judge(mut self, attack: &str) {
        self.0.sort();
        let at = |share: usize| self.0[(self.0.len() - 1) * share / 100];
        println!("{attack}: {} requests, median {:?}, p99 {:?}, longest {:?}", self.0.len(), at(50), at(99), at(100));
        assert!(at(99) < PATIENCE, "{attack}: {:?}", at(99));
    }
}

/// What each of the thousand does.
#[derive(Debug, Clone, Copy)]
enum Attack {
    HalfHeads,
    HalfBodies,
    /// Asks for much, again and again, and reads nothing.
    NoReaders,
}

impl Attack {
    async fn begin(self, port: u16, number: usize) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let client = format!("198.51.{}.{}", 100 + number / 250, number % 250);
        let text = match self {
            Self::HalfHeads => format!("GET /api/v1/users HTTP/1.1\r\nX-Forwarded-For: {client}\r\nHo"),
            Self::HalfBodies => format!(
                "POST /api/v1/auth/callback HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\
                 Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"code\":"
            ),
            Self::NoReaders => {
                format!("GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n").repeat(8)
            }
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// Behind each proxy, and behind none.
async fn keeps_nobody_out(attack: Attack) {
    if !may_open(4 * CLIENTS as u64 + 256) {
        return;
    }
    for kind in [None, Some(ProxyKind::Nginx), Some(ProxyKind::Haproxy)] {
        let app = TestApp::on_sqlite(Shape::Plain).await;
        let mut server = app.server(&[("TRUSTED_PROXIES", "127.0.0.1"), ("DOCS_ENABLED", "true")]).await;
        let proxy = match kind {
            None => None,
            Some(kind) => {
                let Some(proxy) = Proxy::start(kind, server.port).await else { continue };
                Some(proxy)
            }
        };
        let port = proxy.as_ref().map_or(server.port, |proxy| proxy.port);
        server.base = format!("http://127.0.0.1:{port}");
        let caller = TestClient::with_token(&app.http, &server, app.good());
        let (mut waits, mut open) = (Waits::default(), Vec::new());
        for number in 0..CLIENTS {
            open.push(attack.begin(port, number).await);
            if number % 10 == 0 {
                waits.ask(&caller, &server).await;
            }
        }
        for _ in 0..200 {
            waits.ask(&caller, &server).await;
        }
        waits.judge(&format!(
            "{CLIENTS} of {attack:?} behind {}",
            kind.map_or("nothing".to_owned(), |kind| format!("{kind:?}"))
        ));
    }
}

#[tokio::test]
#[ignore = "needs the machine for itself: scripts/test runs it"]
async fn half_heads_keep_nobody_out() {
    keeps_nobody_out(Attack::HalfHeads).await;
}

#[tokio::test]
#[ignore = "needs the machine for itself: scripts/test runs it"]
async fn half_bodies_keep_nobody_out() {
    keeps_nobody_out(Attack::HalfBodies).await;
}

#[tokio::test]
#[ignore = "needs the machine for itself: scripts/test runs it"]
async fn clients_that_read_nothing_keep_nobody_out() {
    keeps_nobody_out(Attack::NoReaders).await;
}

/// A customer of a provider has as many networks as an IPv6 /48 has: each is a client of its own to the limits.
#[tokio::test]
#[ignore = "needs the machine for itself: scripts/test runs it"]
async fn networks_of_a_48_keep_nobody_out() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let limits = [("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_PER_MINUTE", "60"), ("RATE_LIMIT_BURST", "100")];
    let server = app.server(&limits).await;
    let caller = TestClient::with_token(&app.http, &server, app.good());
    let mut waits = Waits::default();
    for part in 0..64_u32 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let mut text = String::new();
        for network in part * 1024..(part + 1) * 1024 {
            let address = format_args!("2001:db8:1:{network:x}::1");
            write!(text, "GET /nope HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n\r\n").unwrap();
        }
        let (mut reader, mut writer) = stream.split();
        let mut nowhere = tokio::io::sink();
        let send = async {
            writer.write_all(text.as_bytes()).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(send, tokio::io::copy(&mut reader, &mut nowhere));
        assert!(read.unwrap() > 100_000, "they are answered");
        waits.ask(&caller, &server).await;
    }
    waits.judge("65,536 networks of an IPv6 /48");
}

#[tokio::test]
#[ignore = "needs the machine for itself: scripts/test runs it"]
async fn ten_thousand_connections_keep_nobody_out_of_256_files() {
    if !may_open(10_500) {
        return;
    }
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let limited = ["-c", "ulimit -n 256 && exec \"$0\"", bulkhead().to_str().unwrap()];
    let environment = app.environment(&[]);
    let environment = crate::support::borrowed(&environment);
    let server = Server::listening(std::path::Path::new("/bin/sh"), &limited, &app.database, &environment).await;
    server.wait_until_ready().await;
    let caller = TestClient::with_token(&app.http, &server, app.good());
    let (mut waits, mut open) = (Waits::default(), Vec::new());
    for number in 0..10_000 {
        open.push(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap());
        if number % 50 == 0 {
            waits.ask(&caller, &server).await;
        }
    }
    waits.judge("10,000 connections against 256 files");
    assert!(!server.log().iter().any(|line| line.contains("cannot accept")), "{:#?}", server.log());
}
