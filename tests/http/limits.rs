//! Limits that hold for every client: how often, how large.

use crate::ready;
use crate::support::{LocalServer, TestApp, TestClient};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use test_support::{Database, eventually};

/// Holds an answer to the one shape, and to being readable for scripts.
async fn assert_refused(response: Response, status: StatusCode, code: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["access-control-allow-origin"], "http://localhost:3000");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["error"]["code"], &body["error"]["request_id"]), (&code.into(), &id.into()));
}

#[tokio::test]
async fn rate_limited_client_is_told_when_to_retry() {
    let database = Database::migrated_sqlite().await;
    let server =
        LocalServer::without_provider(&database, &[("RATE_LIMIT_PER_MINUTE", "40"), ("RATE_LIMIT_BURST", "3")]).await;
    let ask = async |method: Method, path: &str| {
        let request = Client::new().request(method, format!("{}{path}", server.base));
        request.header("origin", "http://localhost:3000").send().await.unwrap()
    };
    for path in ["/", "/nope", "/docs/"] {
        assert_ne!(ask(Method::GET, path).await.status(), 429, "the burst is one for all routes: {path}");
    }
    let refused = ask(Method::GET, "/").await;
    // One share is back every 1.5 s: what is left of it, rounded up.
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_refused(refused, StatusCode::TOO_MANY_REQUESTS, "LIM_001").await;
    // Neither the platform's probes nor preflights count, or are refused.
    for _ in 0..5 {
        assert_eq!(ask(Method::GET, "/api/v1/health/live").await.status(), 200);
        let preflight = Client::new().request(Method::OPTIONS, &server.base).header("origin", "http://localhost:3000");
        let preflight = preflight.header("access-control-request-method", "GET").send().await.unwrap();
        assert_eq!(preflight.status(), 200);
    }
    eventually("its share is back", async || (ask(Method::GET, "/").await.status() == 200).then_some(())).await;
}

/// `"client";r=2;t=3`: the name, and the numbers of the parameters.
fn structured(response: &Response, header: &str) -> (String, Vec<(String, u64)>) {
    let value = response.headers()[header].to_str().unwrap();
    let mut parts = value.split(';');
    let name = parts.next().unwrap().to_owned();
    let number = |part: &str| part.split_once('=').map(|(name, number)| (name.to_owned(), number.parse().unwrap()));
    (name, parts.map(|part| number(part).unwrap()).collect())
}

#[tokio::test]
async fn every_counted_answer_says_what_is_left() {
    let database = Database::migrated_sqlite().await;
    // Three at once, and one more each ten seconds.
    let server =
        LocalServer::without_provider(&database, &[("RATE_LIMIT_PER_MINUTE", "6"), ("RATE_LIMIT_BURST", "3")]).await;
    let ask = async |path: &str| reqwest::get(format!("{}{path}", server.base)).await.unwrap();
    let named =
        |pairs: &[(&str, u64)]| pairs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect::<Vec<_>>();
    for (path, left, status) in [("/", 2, 200), ("/nope", 1, 404), ("/api/v1/tenant", 0, 401)] {
        let answer = ask(path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(structured(&answer, "ratelimit-policy"), ("\"client\"".to_owned(), named(&[("q", 3), ("w", 30)])));
        let (name, state) = structured(&answer, "ratelimit");
        assert_eq!((name.as_str(), &state[0]), ("\"client\"", &("r".to_owned(), left)), "{path}");
        let (t, until) = &state[1];
        assert!(t == "t" && (1..=(3 - left) * 10).contains(until), "{path}: {state:?}");
    }
    let refused = ask("/").await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(structured(&refused, "ratelimit").1, named(&[("r", 0), ("t", wait)]), "as Retry-After");
    assert!(refused.headers().contains_key("ratelimit-policy"));
    let health = ask("/api/v1/health/live").await;
    assert!(!health.headers().contains_key("ratelimit"), "what has no limit says nothing of one");
    let unlimited = LocalServer::without_provider(&database, &[("RATE_LIMIT_PER_MINUTE", "0")]).await;
    assert!(!reqwest::get(&unlimited.base).await.unwrap().headers().contains_key("ratelimit-policy"));
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_a_share_each() {
    let database = Database::migrated_sqlite().await;
    let limit = [("RATE_LIMIT_PER_MINUTE", "1"), ("RATE_LIMIT_BURST", "1"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let server = LocalServer::without_provider(&database, &limit).await;
    let ask = async |client: &str| {
        let request = Client::new().get(&server.base).header("x-forwarded-for", client);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!([ask("192.0.2.1").await, ask("192.0.2.2").await, ask("192.0.2.1").await], [200, 200, 429]);
    assert_eq!([ask("2001:db8::1").await, ask("2001:db8::2").await, ask("2001:db8:0:1::1").await], [200, 429, 200]);
}

/// All of a hospital may have one address, and somebody there may use up its share.
#[tokio::test]
async fn callers_whose_token_is_known_have_a_share_each_whatever_their_address() {
    let limit = [("RATE_LIMIT_PER_MINUTE", "1"), ("RATE_LIMIT_BURST", "5")];
    let app = TestApp::start_with(Database::migrated_sqlite().await, &limit).await;
    let tenant = app.ada().tenant;
    let caller = |subject: &str| app.client(&tenant, subject, "viewer");
    let (ada, grace) = (caller("ada"), caller("grace"));
    // The first use of each token counts against the address, as everything of strangers does.
    for client in [&ada, &grace] {
        assert_eq!(client.get("users").await.status, 200);
    }
    let stranger = TestClient::with_token(&app.http, app.own(), "no token");
    for status in [401, 401, 401, 429, 429] {
        assert_eq!(stranger.get("users").await.status, status, "the address has 5 for all");
    }
    assert_eq!(caller("mary").get("users").await.status, 429, "a new token counts against the address");
    for status in [200, 200, 200, 200, 200, 429] {
        assert_eq!(ada.get("users").await.status, status);
    }
    assert_eq!(grace.get("users").await.status, 200, "her share is her own");
    // Another token of the same caller.
    let again = caller("ada");
    assert_eq!(again.get("users").await.status, 429);
}

#[tokio::test]
async fn untrusted_header_gains_no_other_rate_limit() {
    let database = Database::migrated_sqlite().await;
    let server =
        LocalServer::without_provider(&database, &[("RATE_LIMIT_PER_MINUTE", "1"), ("RATE_LIMIT_BURST", "1")]).await;
    let ask = async |client: &str| {
        let request = Client::new().get(&server.base).header("x-forwarded-for", client).header("x-real-ip", client);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!([ask("192.0.2.1").await, ask("192.0.2.2").await], [200, 429]);
}

#[tokio::test]
async fn too_large_body_is_refused_unread() {
    let database = Database::sqlite();
    let server = ready(&database, &[("MAX_BODY_BYTES", "1000")]).await;
    for path in ["/", "/nope", "/api/v1/health/live"] {
        let post = |length| Client::new().post(format!("{}{path}", server.base)).body(vec![b'x'; length]);
        let large = post(1001).header("origin", "http://localhost:3000").send().await.unwrap();
        assert_refused(large, StatusCode::PAYLOAD_TOO_LARGE, "VAL_004").await;
        assert_ne!(post(1000).send().await.unwrap().status(), 413, "{path}");
        // Far more than fits into any buffer: the answer still arrives.
        let huge = post(3_000_000).header("origin", "http://localhost:3000").send().await.unwrap();
        assert_refused(huge, StatusCode::PAYLOAD_TOO_LARGE, "VAL_004").await;
    }
}
