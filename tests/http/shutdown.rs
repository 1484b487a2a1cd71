//! Stopping in order: readiness first, then the socket, then the requests in flight, then exit 0.

use crate::health::sea_orm_lock;
use crate::ready;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::{Database, Server, Signal, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an idle server may take to stop.
const PROMPT: Duration = Duration::from_secs(2);

async fn open(server: &Server<'_>) -> TcpStream {
    TcpStream::connect(("127.0.0.1", server.port)).await.unwrap()
}

/// Reads one answer's head and body, as far as the server sends them at once.
async fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn an_idle_server_stops_at_once_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let database = Database::sqlite();
        let mut server = ready(&database, &[]).await;
        server.signal(signal);
        assert_eq!(server.ended_within(PROMPT).await.code(), Some(0), "{signal:?}");
        server.log_line(r#""message":"stopped""#, "INFO").await;
    }
}

#[tokio::test]
async fn connections_without_a_request_do_not_hold_it_up() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[]).await;
    let _unused = open(&server).await;
    let mut kept_alive = open(&server).await;
    kept_alive.write_all(b"GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut kept_alive).await.starts_with("HTTP/1.1 200"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(PROMPT).await.code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_it_exits() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let mut server = ready(&database, &[]).await;
    let connection = database.connect().await;
    let lock = sea_orm_lock(&connection).await;
    let mut stream = open(&server).await;
    stream.write_all(b"GET /api/v1/health/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    eventually("the request waits for the lock", async || {
        use sea_orm::{ConnectionTrait, Statement};
        let waiting = "SELECT 1 AS one FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let waiting = Statement::from_string(sea_orm::DbBackend::Postgres, waiting);
        lock.query_one_raw(waiting).await.unwrap().map(drop)
    })
    .await;
    server.signal(Signal::TERM);
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("\"checks\""), "{text}");
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    // The statement still waits for its lock; nothing waits for the statement.
    assert_eq!(server.ended_within(PROMPT).await.code(), Some(0));
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn half_sent_head_is_answered_before_exit() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[]).await;
    let mut stream = open(&server).await;
    stream.write_all(b"GET /api/v1/health/live HTTP/1.1\r\nHo").await.unwrap();
    // Once another connection is answered, this older one's bytes have been read.
    assert!(server.get("/api/v1/health/live").await.is_some());
    server.signal(Signal::TERM);
    eventually("it stops accepting", async || TcpStream::connect(("127.0.0.1", server.port)).await.err()).await;
    stream.write_all(b"st: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn queued_requests_are_answered_at_stop() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[]).await;
    // While it is stopped the kernel completes the connections and holds what they send.
    server.signal(Signal::STOP);
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut stream = open(&server).await;
        stream.write_all(b"GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        streams.push(stream);
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for mut stream in streams {
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(server.ended_within(PROMPT).await.code(), Some(0));
}

/// Between the last accept and the close a connection could come and be reset, some 0.4 of them at each stop under such a load.
#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_reset_at_stop() {
    const STOPS: usize = 20;
    let database = Database::sqlite();
    let mut slow = 0;
    for _ in 0..STOPS {
        let mut server = ready(&database, &[("RATE_LIMIT_PER_MINUTE", "0")]).await;
        let address = SocketAddr::from(([127, 0, 0, 1], server.port));
        let clients: Vec<_> = (0..6).map(|_| std::thread::spawn(move || connect_until_refused(address))).collect();
        assert!(server.get("/api/v1/health/live").await.is_some());
        server.signal(Signal::TERM);
        assert_eq!(server.ended_within(PROMPT).await.code(), Some(0));
        slow += clients.into_iter().map(|client| client.join().unwrap()).filter(|took| took.as_millis() > 900).count();
    }
    // Where the kernel drops a packet, its client sends another a second later. It may drop what comes in the very moment.
    assert!(slow < STOPS, "{slow} clients had to wait to hear that the port is closed");
}

/// Sends one request through one connection after another until the port is closed. Returns how long the client waited to hear that.
fn connect_until_refused(address: SocketAddr) -> Duration {
    use std::io::{ErrorKind, Read, Write};
    loop {
        let begun = Instant::now();
        let mut stream = match std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
            Ok(stream) => stream,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                return begun.elapsed();
            }
        };
        let connected = Instant::now();
        let mut head = [0; 12];
        let sent = stream.write_all(b"GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n");
        let asked = connected.elapsed();
        match sent.and_then(|()| stream.read_exact(&mut head)) {
            Ok(()) => assert_eq!(&head, b"HTTP/1.1 200"),
            // A stop waits 200 ms for what is on its way, and this thread may have been held up for longer.
            Err(error) => assert!(asked > Duration::from_millis(150), "{error}, asked after {asked:?}"),
        }
    }
}

#[tokio::test]
async fn shutdown_delay_turns_readiness_503_first() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[("SHUTDOWN_DELAY_SECONDS", "3600")]).await;
    server.signal(Signal::TERM);
    let body = eventually("readiness turns 503", async || {
        let (status, body) = server.get("/api/v1/health/ready").await?;
        (status == 503).then_some(body)
    })
    .await;
    assert!(body.contains("\"draining\""), "{body}");
    assert_eq!(server.get("/api/v1/health/live").await.unwrap().0, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(PROMPT).await.code(), Some(1), "a second signal exits at once");
}

#[tokio::test]
async fn outside_development_a_stop_waits_for_balancers() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[("ENVIRONMENT", "staging")]).await;
    let idle = open(&server).await;
    let told = Instant::now();
    server.signal(Signal::TERM);
    eventually("readiness turns 503", async || (server.get("/api/v1/health/ready").await?.0 == 503).then_some(()))
        .await;
    // A new connection and one from before are served, and closed behind the answer.
    for mut stream in [open(&server).await, idle] {
        stream.write_all(b"GET /api/v1/tenant HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 401"), "{text}");
        assert!(text.to_lowercase().contains("connection: close"), "{text}");
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "closed");
    }
    assert_eq!(server.ended_within(Duration::from_secs(5) + PROMPT).await.code(), Some(0));
    assert!(told.elapsed() >= Duration::from_secs(5), "{:?}", told.elapsed());
}

#[tokio::test]
async fn requests_wait_for_a_start() {
    for database in [Some(Database::sqlite()), Database::postgres().await].into_iter().flatten() {
        let server = Server::listening(crate::bulkhead(), &["serve"], &database, &[]).await;
        // Tables are missing, and the request is neither refused nor answered.
        let mut stream = open(&server).await;
        stream.write_all(b"GET /api/v1/tenant HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        eventually("it waits for the schema", async || {
            let (_, body) = server.get_json("/api/v1/health/startup").await;
            (body["status"] == "waiting-for-schema").then_some(())
        })
        .await;
        crate::must(&["migrate", "up"], &[("DATABASE_URL", &database.url)]).await;
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 401"), "{text}");
    }
}

/// A balancer sends a refused connection's request elsewhere at once.
#[tokio::test]
async fn short_start_refuses_connections_and_a_long_one_is_alive() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = database.connect().await;
    // The start waits for the schema's history.
    let lock = sea_orm_lock(&connection).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = [("DATABASE_URL", database.url.as_str()), ("PORT", &port.to_string()), ("HOST", "127.0.0.1")];
    let begun = Instant::now();
    let mut child = Server::command(crate::bulkhead(), &settings).arg("start").spawn().unwrap();
    let refused = eventually("it takes a connection", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok().then(|| begun.elapsed())
    });
    assert!(refused.await >= Duration::from_secs(1));
    let live = format!("http://127.0.0.1:{port}/api/v1/health/live");
    assert_eq!(reqwest::get(&live).await.unwrap().status(), 200);
    lock.rollback().await.unwrap();
    let ready = live.replace("live", "ready");
    eventually("it is ready", async || (reqwest::get(&ready).await.ok()?.status() == 200).then_some(())).await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn connections_are_open_before_the_first_request() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let server = Server::listening(crate::bulkhead(), &["start"], &database, &[]).await;
    server.log_line("ready on", "INFO").await;
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'bulkhead'";
    let open: i64 = crate::support::value(&database.connect().await, sessions).await;
    assert!(open >= 4, "{open}");
}

#[tokio::test]
async fn unfinished_request_is_cut_off_after_the_drain() {
    let database = Database::sqlite();
    let mut server = ready(&database, &[("SHUTDOWN_DRAIN_SECONDS", "1")]).await;
    let mut stuck = open(&server).await;
    stuck.write_all(b"GET /api/v1/health/live HTTP/1.1\r\nHo").await.unwrap();
    assert!(server.get("/api/v1/health/live").await.is_some());
    let told = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(Duration::from_secs(4)).await.code(), Some(0));
    assert!(told.elapsed() >= Duration::from_secs(1), "it was given its time");
    assert!(server.log().iter().any(|line| line.contains("SHUTDOWN_DRAIN_SECONDS")), "{:#?}", server.log());
}

#[tokio::test]
async fn waiting_start_stops_at_once() {
    let Some(database) = Database::postgres().await else { return };
    let away = [
        ("DATABASE_URL", "postgres://me@127.0.0.1:1/app"),
        ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "60"),
        // It was never ready, so no balancer has to notice.
        ("SHUTDOWN_DELAY_SECONDS", "3600"),
    ];
    let mut server = Server::listening(crate::bulkhead(), &[], &database, &away).await;
    assert_eq!(server.get("/api/v1/health/live").await.unwrap().0, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(PROMPT).await.code(), Some(0));
}
