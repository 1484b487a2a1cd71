//! Where a token is read from.

use super::{GOOD, INVALID, NO_TOKEN, Outcome};
use crate::support::{TestApp, assert_log_without};
use std::io::{Read, Write};
use std::net::TcpStream;
use test_support::provider::Shape;

/// What a request is for, its query, its headers, and what must come of it.
type Sent<'s> = (&'s str, &'s str, &'s [(&'s str, &'s str)], Outcome);

#[tokio::test]
async fn token_is_read_from_one_header_alone() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.server(&[]).await;
    let token = app.good();
    let (bearer, cookie) = (format!("Bearer {token}"), format!("access_token={token}"));
    let query = format!("?access_token={token}&token={token}");
    let scheme = |scheme: &str| format!("{scheme}{token}");
    let [lower, upper, basic, other, none, colon, tab, spaces] =
        ["bearer ", "BEARER ", "Basic ", "Token ", "", "Bearer:", "Bearer\t", "Bearer   "].map(scheme);
    let twice = format!("Bearer Bearer {token}");
    let cases: [Sent<'_>; 18] = [
        ("as it should be", "", &[("authorization", &bearer)], GOOD),
        ("bearer", "", &[("authorization", &lower)], GOOD),
        ("BEARER", "", &[("authorization", &upper)], GOOD),
        ("several spaces", "", &[("authorization", &spaces)], GOOD),
        ("no header", "", &[], NO_TOKEN),
        ("Basic", "", &[("authorization", &basic)], NO_TOKEN),
        ("another scheme", "", &[("authorization", &other)], NO_TOKEN),
        ("no scheme", "", &[("authorization", &none)], NO_TOKEN),
        ("a colon", "", &[("authorization", &colon)], NO_TOKEN),
        ("a tab", "", &[("authorization", &tab)], NO_TOKEN),
        ("no token", "", &[("authorization", "Bearer")], NO_TOKEN),
        ("an empty header", "", &[("authorization", "")], NO_TOKEN),
        ("the word twice", "", &[("authorization", &twice)], INVALID),
        ("two headers", "", &[("authorization", &bearer), ("authorization", &bearer)], INVALID),
        ("two schemes", "", &[("authorization", "Basic eDp5"), ("authorization", &bearer)], INVALID),
        ("the query", &query, &[], NO_TOKEN),
        ("a cookie", "", &[("cookie", &cookie)], NO_TOKEN),
        ("other headers", "", &[("x-access-token", &token), ("proxy-authorization", &bearer)], NO_TOKEN),
    ];
    for (name, query, headers, expected) in cases {
        let answer = app.call(&server, query, headers).await;
        assert_eq!(answer.outcome(), expected, "{name}");
        assert_eq!(answer.header("www-authenticate").starts_with("Bearer"), expected.0 == 401, "{name}");
    }
    let answer = app.call(&server, "", &[("authorization", &twice)]).await;
    assert_eq!(answer.body["error"]["detail"], "the word Bearer is there twice: send it once");
    assert_log_without(&server, [token.as_str()]);
}

#[tokio::test]
async fn bytes_that_no_header_may_hold_are_a_bad_request() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.server(&[]).await;
    let token = app.good();
    for byte in [0_u8, 1, 8, 11, 127] {
        let mut request = b"GET /api/v1/auth/validate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".to_vec();
        request.extend_from_slice(format!("Authorization: Bearer {token}").as_bytes());
        request.extend_from_slice(&[byte]);
        request.extend_from_slice(b"\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{byte}: {answer}");
    }
    assert_log_without(&server, [token.as_str()]);
}
