//! No line of the log names a patient or opens a door, whatever a client sends and wherever it puts it.

use crate::{ready, run};
use reqwest::{Client, Method};
use serde_json::Value;
use test_support::Database;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is sent, in many dresses; none of it may be logged.
const SECRETS: [&str; 12] = [
    "123-45-6789",
    "123%2D45%2D6789",
    "123%252D45%252D6789",
    "%31%32%33-45-6789",
    "5551234567",
    "(555)123-4567",
    "joe@example.org",
    "joe%40example.org",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ0NzcifQ.c2lnbmF0dXJl",
    "Elm%20Street",
    "p77secret",
    "O'Hara;drop",
];

const NAMES: [&str; 13] = [
    "patient_id",
    "ssn",
    "MRN",
    "medical_record_number",
    "Date_Of_Birth",
    "dob",
    "phone",
    "email",
    "address",
    "code",
    "state",
    "token",
    "s%73n",
];

#[tokio::test]
async fn nothing_that_a_client_sends_is_logged_at_any_level() {
    let database = Database::sqlite();
    let levels = [("LOG_LEVEL", "trace"), ("MAX_BODY_BYTES", "100")];
    let server = ready(&database, &levels).await;
    let client = Client::new();
    for secret in SECRETS {
        let query: Vec<String> = NAMES.iter().map(|name| format!("{name}={secret}")).collect();
        for path in ["/", "/api/v1/health/ready", "/api/v1/patients"] {
            for url in [
                format!("{path}?{}", query.join("&")),
                format!("{path}?{}", query.join(";")),
                format!("{path}/{secret}"),
            ] {
                let request = client.request(Method::POST, format!("{}{url}", server.base)).body(secret.repeat(3));
                let request = request.header("authorization", format!("Bearer {secret}"));
                let request = request.header("cookie", format!("login={secret}; ssn={secret}"));
                let request = request.header("x-request-id", secret).header("x-forwarded-for", secret);
                request
                    .header("referer", format!("https://x/?ssn={secret}"))
                    .header(secret_name(secret), secret)
                    .send()
                    .await
                    .unwrap();
            }
        }
        // A head that is no request, and a verb that is none.
        for head in [
            format!("{secret} / HTTP/1.1\r\n\r\n"),
            format!("GET /{secret} x\r\n\r\n"),
            format!("GET /?ssn={secret} HTTP/1.1\r\nbad {secret}\r\n\r\n"),
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    let last = client.get(format!("{}/last", server.base)).send().await.unwrap();
    server.log_line("\"request\"", last.headers()["x-request-id"].to_str().unwrap()).await;
    let log = server.log();
    assert!(log.len() > 200, "{}", log.len());
    for line in &log {
        for secret in SECRETS {
            assert!(!line.contains(secret), "{secret} is in the log:\n{line}");
        }
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// A header's name of a client's own choice.
fn secret_name(secret: &str) -> String {
    format!("x-{}", secret.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
}

#[tokio::test]
async fn own_log_lines_are_redacted() {
    for format in ["json", "pretty"] {
        let (database, folder) = (Database::sqlite(), tempfile::tempdir().unwrap());
        let file = folder.path().join("joe@example.org-123-45-6789.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let server = ready(&database, &[("DATABASE_URL", &url), ("LOG_FORMAT", format)]).await;
        let line = server.log_line("bulkhead starts", "sqlite://").await;
        assert!(line.contains("[redacted]") && !line.contains("joe") && !line.contains("6789"), "{line}");
    }
}

#[tokio::test]
async fn what_operators_need_is_not_redacted() {
    let database = Database::sqlite();
    let server = ready(&database, &[("LOG_LEVEL", "debug")]).await;
    let response = reqwest::get(&server.base).await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let event: Value = serde_json::from_str(&server.log_line("client_ip", &id).await).unwrap();
    assert_eq!((&event["route"], &event["client_ip"]), (&"/".into(), &"127.0.0.1".into()));
    let log = server.log().join("\n");
    assert!(!log.contains("[redacted]"), "{log}");
    let output = run(&["config", "show"], &[]).await;
    assert!(output.status.success());
}
