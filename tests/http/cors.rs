//! Other sites' scripts: who may read answers, and what every answer tells browsers.

use crate::support::{LocalServer, Serves};
use crate::{bulkhead, run, stderr};
use reqwest::{Client, Method, Response};
use test_support::{Database, Server};

const APP: &str = "https://app.example.org";

/// What scripts may read of an answer besides what they always may.
const EXPOSED: &str = "x-request-id,etag,location,retry-after,www-authenticate,allow,ratelimit,\
     ratelimit-policy,preference-applied,idempotency-replayed";

async fn ask(server: &impl Serves, method: Method, path: &str, origin: &str) -> Response {
    let request = Client::new().request(method.clone(), format!("{}{path}", server.base())).header("origin", origin);
    let preflight = request.try_clone().unwrap().header("access-control-request-method", "PATCH");
    let request = if method == Method::OPTIONS { preflight } else { request };
    request.send().await.unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn only_a_listed_origin_may_read_answers() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(
        &database,
        &[("ALLOWED_ORIGINS", "https://app.example.org, http://localhost:9000")],
    )
    .await;
    for path in ["/", "/nope", "/api/v1/health/live", "/api/v1/nope"] {
        for (origin, allowed) in [
            (APP, true),
            ("http://localhost:9000", true),
            ("https://app.example.org.evil.net", false),
            ("https://app.example.org:8443", false),
            ("http://app.example.org", false),
            ("https://APP.example.org", false),
            ("null", false),
            // Those of development stand only where nothing else is said.
            ("http://localhost:3000", false),
        ] {
            let response = ask(&server, Method::GET, path, origin).await;
            assert_eq!(header(&response, "access-control-allow-origin"), allowed.then_some(origin), "{path} {origin}");
            assert_eq!(header(&response, "access-control-allow-credentials"), Some("true"));
            assert_eq!(header(&response, "access-control-expose-headers"), Some(EXPOSED));
            assert!(header(&response, "vary").unwrap().contains("origin"), "{:?}", response.headers());
        }
    }
}

#[tokio::test]
async fn preflight_is_answered_on_every_path() {
    let database = Database::sqlite();
    // Not ready: preflights do not depend on the schema.
    let environment = [("ALLOWED_ORIGINS", APP), ("DATABASE_URL", "postgres://me@127.0.0.1:1/app")];
    let server = Server::listening(bulkhead(), &["serve"], &database, &environment).await;
    for path in ["/docs/", "/api/v1/users"] {
        let response = ask(&server, Method::OPTIONS, path, APP).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), Some(APP));
        assert_eq!(header(&response, "access-control-max-age"), Some("86400"));
        let methods = header(&response, "access-control-allow-methods").unwrap();
        assert_eq!(methods, "GET,POST,PUT,PATCH,DELETE,OPTIONS");
        let headers = header(&response, "access-control-allow-headers").unwrap();
        assert_eq!(headers, "authorization,content-type,idempotency-key,if-match,if-none-match,prefer");
        let id = header(&response, "x-request-id").unwrap().to_owned();
        server.log_line("\"OPTIONS\"", &id).await;
    }
}

#[tokio::test]
async fn localhost_origins_are_allowed_in_development() {
    let database = Database::migrated_sqlite().await;
    let development = LocalServer::without_provider(&database, &[]).await;
    let production = LocalServer::without_provider(&database, &[("ENVIRONMENT", "production")]).await;
    for origin in ["http://localhost:3000", "http://localhost:5173", "http://127.0.0.1:3000"] {
        let response = ask(&development, Method::GET, "/", origin).await;
        assert_eq!(header(&response, "access-control-allow-origin"), Some(origin));
        let response = ask(&production, Method::GET, "/", origin).await;
        assert_eq!(header(&response, "access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn malformed_origin_is_refused_by_name() {
    for (environment, value, said) in [
        ("development", "*", "list each origin"),
        ("development", "https://a.org,*", "list each origin"),
        ("development", "https://a.org/", "write https://a.org"),
        ("development", "https://me:hunter2@a.org", "write https://a.org"),
        ("development", "a.org", "must be origins such as"),
        ("production", "http://a.org", "must be https when ENVIRONMENT=production"),
    ] {
        let settings = [("ENVIRONMENT", environment), ("DATABASE_URL", "sqlite://x.db"), ("ALLOWED_ORIGINS", value)];
        let output = run(&["config", "check"], &settings).await;
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{value}");
        assert!(text.starts_with("ALLOWED_ORIGINS: ") && text.contains(said), "{value}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_what_not_to_do_with_it() {
    let database = Database::migrated_sqlite().await;
    let development = LocalServer::without_provider(&database, &[]).await;
    let production = LocalServer::without_provider(&database, &[("ENVIRONMENT", "production")]).await;
    for path in ["/", "/nope", "/api/v1/health/live", "/api/v1/nope"] {
        let response = ask(&production, Method::GET, path, APP).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ] {
            assert_eq!(header(&response, name), Some(value), "{path}");
        }
        let policy = header(&response, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
        assert_neither_framed_nor_rebased(policy);
        assert_eq!(header(&response, "cache-control"), (path != "/").then_some("no-store"), "{path}");
        let response = ask(&development, Method::GET, path, APP).await;
        assert_eq!(header(&response, "strict-transport-security"), None, "{path}");
    }
    let docs = ask(&development, Method::GET, "/docs/", APP).await;
    let policy = header(&docs, "content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe-eval"), "{policy}");
    assert_neither_framed_nor_rebased(policy);
}

/// What `default-src` is no default for.
#[track_caller]
fn assert_neither_framed_nor_rebased(policy: &str) {
    for directive in ["frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.split("; ").any(|part| part == directive), "{directive}: {policy}");
    }
}
