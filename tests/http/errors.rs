//! Every 4xx and 5xx has one shape, the router's own included.

use crate::ready;
use crate::support::{LocalServer, TestApp};
use bulkhead::error::ErrorCode;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use test_support::Database;

#[tokio::test]
async fn router_refusals_have_the_error_shape() {
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
async fn a_client_that_asks_for_problems_gets_them() {
    let app = TestApp::start(Database::migrated_sqlite().await).await;
    let clinic = app.new_tenant().await;
    let get = async |accept: &[&str]| {
        let mut request = clinic.admin.request("GET", "documents?limit=x");
        for line in accept {
            request = request.header("accept", *line);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        (content_type, id, response.json::<Value>().await.unwrap())
    };
    for accept in [
        &["application/problem+json"][..],
        &["Application/Problem+JSON; q=0.5"],
        &["application/json, application/problem+json"],
        &["application/json", "text/html;q=0, application/problem+json;q=0.001"],
    ] {
        let (content_type, id, body) = get(accept).await;
        assert_eq!(content_type, "application/problem+json", "{accept:?}");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.starts_with("The input is not in the expected format. "), "{detail}");
        let expected = json!({
            "type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail,
            "code": "VAL_003", "field": "limit", "request_id": id,
        });
        assert_eq!(body, expected, "{accept:?}");
    }
    for accept in [
        &["*/*"][..],
        &["application/*"],
        &["application/json"],
        &["application/problem+json;q=0"],
        &["application/problem+json; Q=0.000"],
        &["application/problem+jsonx"],
        &["\u{e9}, application/problem+json"],
    ] {
        let (content_type, _, body) = get(accept).await;
        assert_eq!((&*content_type, &body["error"]["code"]), ("application/json", &json!("VAL_003")), "{accept:?}");
    }
}

#[tokio::test]
async fn detail_is_told_in_development_alone() {
    let database = Database::migrated_sqlite().await;
    for environment in ["development", "staging", "production"] {
        let server = LocalServer::without_provider(&database, &[("ENVIRONMENT", environment)]).await;
        let told = environment == "development";
        let ask = async |accept: &str| {
            let request = Client::new().post(format!("{}/api/v1/auth/callback", server.base)).header("accept", accept);
            let response =
                request.header("content-type", "application/json").body("{\"code\": 7}").send().await.unwrap();
            assert_eq!(response.status(), 400, "{environment}");
            response.json::<Value>().await.unwrap()
        };
        let body = ask("application/json").await;
        let error = &body["error"];
        assert_eq!((&error["code"], &error["field"]), (&json!("VAL_001"), &json!("code")), "{environment}: {body}");
        assert_eq!(error.get("detail").is_some(), told, "{environment}: {body}");
        let problem = ask("application/problem+json").await;
        assert_eq!(problem["detail"] != error["message"], told, "{environment}: {problem}");
        assert_eq!(problem.to_string().contains("integer"), told, "what serde says of it, {environment}: {problem}");
    }
}

#[tokio::test]
async fn a_head_request_to_nowhere_has_no_body() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[]).await;
    let response = Client::new().head(format!("{}/nope", server.base)).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert!(response.bytes().await.unwrap().is_empty());
}

/// The page docs/errors.md, from the registry.
fn page() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Every answer of 4xx and 5xx has one shape; `detail` is there in development only. Give the `request_id` to whoever\n\
         looks into the log.\n\n\
         ```json\n\
         {\"error\": {\"code\": \"RES_001\", \"message\": \"There is nothing at this address.\", \"request_id\": \"0193…\"}}\n\
         ```\n\n\
         With `Accept: application/problem+json` it is a problem of RFC 9457, also where Accept names `application/json` besides:\n\n\
         ```json\n\
         {\"type\": \"about:blank\", \"title\": \"Not Found\", \"status\": 404, \"detail\": \"There is nothing at this address.\",\n \
         \"code\": \"RES_001\", \"request_id\": \"0193…\"}\n\
         ```\n\n\
         A `field` is in both; in development, more stands in `detail`. What breaks HTTP's own rules, such as a line that is no\n\
         header, has the first shape always.\n\n\
         Codes are stable: rely on them, not on messages. A 401 carries `WWW-Authenticate: Bearer` (RFC 6750), a 429 and a\n\
         503 carry `Retry-After` in seconds. Health endpoints answer 503 with their own body.\n\n\
         | code | status | message | what it means, what to change |\n|---|---|---|---|\n",
    );
    for error in ErrorCode::ALL {
        let (code, status) = (error.code(), error.status());
        writeln!(page, "| {code} | {status} | {} | {} |", error.message(), error.meaning()).unwrap();
    }
    page.push_str(
        "\nThis page is made from the registry in `src/error.rs`: `UPDATE_DOCS=1 cargo test --test http errors` writes it.\n",
    );
    page
}

#[test]
fn the_documentation_lists_every_code_of_the_registry() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), page(), "UPDATE_DOCS=1 writes it anew");
}

#[test]
fn no_two_errors_share_a_code() {
    let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
    assert_eq!(codes.len(), ErrorCode::ALL.len());
}
