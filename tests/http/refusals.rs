//! What is no HTTP request is refused in the shape of every other error, on the wire and in the log.

use crate::ready;
use serde_json::Value;
use test_support::{Database, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `bytes` and returns everything that comes back until the server closes.
async fn exchange(server: &Server<'_>, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let bytes = bytes.to_vec();
    let sending = tokio::spawn(async move {
        // The server may close before it has read all of it.
        let _ = writing.write_all(&bytes).await;
        writing
    });
    let mut answer = Vec::new();
    reading.read_to_end(&mut answer).await.unwrap();
    drop(sending.await.unwrap());
    String::from_utf8(answer).unwrap()
}

/// Holds the one answer in `text` to the shape; returns its id.
fn assert_shape(text: &str, status: &str, code: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        let found: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        assert_eq!(found.len(), 1, "{name} in {head}");
        found[0].to_owned()
    };
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("connection"), "close");
    assert_eq!(header("content-length"), body.len().to_string());
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("cache-control"), "no-store");
    let body: Value = serde_json::from_str(body).unwrap();
    let id = header("x-request-id");
    assert_eq!((&body["error"]["code"], &body["error"]["request_id"]), (&code.into(), &id.clone().into()));
    id
}

#[tokio::test]
async fn malformed_request_has_the_error_shape() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let many = "x: y\r\n".repeat(150);
    let cases: [(&str, Vec<u8>, &str, &str); 10] = [
        ("garbage", b"\x00\x01\x02\xff\xfe garbage\r\n\r\n".to_vec(), "400", "VAL_001"),
        ("a request line of one word", b"HELLO\r\n\r\n".to_vec(), "400", "VAL_001"),
        ("an unknown version", b"GET / HTTP/3.7\r\n\r\n".to_vec(), "400", "VAL_001"),
        ("a header without a colon", b"GET / HTTP/1.1\r\nbad header\r\n\r\n".to_vec(), "400", "VAL_001"),
        (
            "two lengths",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
            "400",
            "VAL_001",
        ),
        ("a negative length", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(), "400", "VAL_001"),
        (
            "a TLS handshake",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\r\n\r\n".to_vec(),
            "400",
            "VAL_001",
        ),
        ("too many headers", format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes(), "431", "VAL_004"),
        (
            "a header of a megabyte",
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes(),
            "431",
            "VAL_004",
        ),
        ("a long address", format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000)).into_bytes(), "414", "VAL_004"),
    ];
    for (what, bytes, status, code) in cases {
        let text = exchange(&server, &bytes).await;
        assert!(!text.is_empty(), "{what}");
        let id = assert_shape(&text, status, code);
        let event: Value = serde_json::from_str(&server.log_line("not a request", &id).await).unwrap();
        assert_eq!(
            (event["status"].to_string().as_str(), &event["client_ip"]),
            (status, &"127.0.0.1".into()),
            "{what}"
        );
    }
}

#[tokio::test]
async fn request_names_one_host() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    for (version, hosts, status) in [
        ("1.1", &[][..], "400"),
        ("1.1", &["a", "a"], "400"),
        ("1.0", &["a", "b"], "400"),
        ("1.1", &["a b/@"], "400"),
        ("1.1", &["me@example.org"], "400"),
        ("1.1", &["example.org:8080"], "200"),
        ("1.1", &["[::1]"], "200"),
        ("1.1", &[""], "200"),
        ("1.0", &[], "200"),
    ] {
        let lines = hosts.iter().map(|host| format!("host: {host}\r\n")).collect::<Vec<_>>().concat();
        let head = format!("GET /api/v1/health/live HTTP/{version}\r\n{lines}connection: close\r\n\r\n");
        let text = exchange(&server, head.as_bytes()).await;
        assert!(text.split(' ').nth(1) == Some(status), "{version} {hosts:?}: {text}");
        assert_eq!(text.contains("\"code\":\"VAL_001\""), status == "400", "{text}");
        assert_eq!(text.contains("\"field\":\"Host\""), status == "400", "{text}");
    }
}

#[tokio::test]
async fn answers_before_a_refusal_are_unchanged() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let good = "GET /api/v1/health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    for (before, answers) in [(good.to_owned(), 1), (good.repeat(5), 5), (good.replace("GET", "HEAD"), 1)] {
        let text = exchange(&server, format!("{before}nonsense\r\n\r\n").as_bytes()).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), answers, "{text}");
        let at = text.rfind("HTTP/1.1 400").unwrap_or_else(|| panic!("no refusal: {text}"));
        assert_shape(&text[at..], "400", "VAL_001");
        assert_eq!(text.matches("\"status\":\"ok\"").count(), if before.starts_with("HEAD") { 0 } else { answers });
    }
}

#[tokio::test]
async fn ambiguous_request_is_never_two_requests() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    // The length ends before the chunks do: what follows it must not count as a request.
    let smuggled = b"POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n29\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n     \r\n\r\n0\r\n\r\n";
    let text = exchange(&server, smuggled).await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert_shape(
        &text,
        if text.starts_with("HTTP/1.1 404") { "404" } else { "400" },
        if text.starts_with("HTTP/1.1 404") { "RES_001" } else { "VAL_001" },
    );
    let text = exchange(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(text.is_empty() || text.contains("x-request-id"), "{text}");
}

#[tokio::test]
async fn ordinary_answers_keep_the_connection_open() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"HEAD /nope HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 404 ") && !head.contains("connection: close"), "{head}");
    }
}
