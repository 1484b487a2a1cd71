//! Whose word about the client is taken: a trusted proxy's, nobody else's.

use crate::ready;
use reqwest::Client;
use serde_json::Value;
use test_support::{Database, Server};
use uuid::Uuid;

/// The address and the id under which a request with `headers` is logged.
async fn logged(server: &Server<'_>, headers: &[(&str, &str)]) -> (String, String) {
    let mut request = Client::new().get(&server.base);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let line = server.log_line("client_ip", &id).await;
    let event: Value = serde_json::from_str(&line).unwrap();
    (event["client_ip"].as_str().unwrap().to_owned(), id)
}

#[tokio::test]
async fn nobody_is_believed_by_default() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let claims = [("x-forwarded-for", "192.0.2.1"), ("x-real-ip", "192.0.2.1"), ("x-request-id", "mine")];
    let (ip, id) = logged(&server, &claims).await;
    assert_eq!(ip, "127.0.0.1");
    assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_the_request() {
    let database = Database::sqlite();
    let server = ready(&database, &[("TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")]).await;
    let spoofed = "1.1.1.1, 192.0.2.1, 10.9.9.9";
    for (headers, expected) in [
        (&[("x-forwarded-for", spoofed)][..], "192.0.2.1"),
        (&[("x-real-ip", "192.0.2.7")], "192.0.2.7"),
        (&[("x-forwarded-for", spoofed), ("x-real-ip", "1.1.1.1")], "192.0.2.1"),
        (&[("x-forwarded-for", "123-45-6789")], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ] {
        assert_eq!(logged(&server, headers).await.0, expected, "{headers:?}");
    }
    let longest = "x".repeat(128);
    let hash = "9f86d081884c7d659a2feaa0c55ad015";
    for taken in ["mine", "a.b_c-D9", "123456789", hash, longest.as_str()] {
        assert_eq!(logged(&server, &[("x-request-id", taken)]).await.1, taken);
    }
    let too_long = "x".repeat(129);
    // The last ones the log would not show: they could not be found by what the client was told.
    let unlogged = ["5551234567", "123-45-6789", "a-5551234567", "eyJhbGciOiJub25lIn0"];
    for refused in [&["", "a b", "a\"b", "é", "a,b", too_long.as_str()], &unlogged[..]].concat() {
        let id = logged(&server, &[("x-request-id", refused)]).await.1;
        assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7, "{refused:?}");
    }
    let twice = logged(&server, &[("x-request-id", "one"), ("x-request-id", "two")]).await.1;
    assert!(Uuid::parse_str(&twice).is_ok(), "{twice}");
}

#[tokio::test]
async fn unlisted_proxy_is_not_believed() {
    let database = Database::sqlite();
    let server = ready(&database, &[("TRUSTED_PROXIES", "railway,127.0.0.2/32,::1")]).await;
    assert_eq!(logged(&server, &[("x-real-ip", "192.0.2.1"), ("x-request-id", "mine")]).await.0, "127.0.0.1");
}
