//! Every 4xx and 5xx has one shape, the router's own included.

use crate::ready;
use reqwest::{Client, Method};
use serde_json::Value;
use test_support::Database;

#[tokio::test]
async fn the_routers_own_refusals_have_the_error_shape_and_the_requests_id() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let cases = [
        (Method::GET, "/nope", 404, "RES_001"),
        (Method::GET, "/api/v1/nope?ssn=123-45-6789", 404, "RES_001"),
        (Method::GET, "/%00%ff", 404, "RES_001"),
        (Method::GET, "/docs/nope.js", 404, "RES_001"),
        (Method::POST, "/api/v1/health/live", 405, "RES_004"),
        (Method::DELETE, "/", 405, "RES_004"),
    ];
    for (method, path, status, code) in cases {
        let request = Client::new().request(method.clone(), format!("{}{path}", server.base));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers().contains_key("allow"), status == 405, "{method} {path}");
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = response.json().await.unwrap();
        let fields: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["code", "message", "request_id"]);
        assert_eq!((&body["error"]["code"], &body["error"]["request_id"]), (&code.into(), &id.into()));
    }
    let log = server.log().join("\n");
    assert!(!log.contains("123-45-6789") && !log.contains("nope"), "a raw path in the log:\n{log}");
}

#[tokio::test]
async fn a_head_request_to_nowhere_has_no_body() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let response = Client::new().head(format!("{}/nope", server.base)).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert!(response.bytes().await.unwrap().is_empty());
}
