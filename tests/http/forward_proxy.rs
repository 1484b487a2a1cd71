//! The way to the identity provider through a proxy, by the variables of the environment that curl reads, too.

use crate::bulkhead;
use crate::login::log_in;
use crate::support::{TestApp, borrowed};
use test_support::provider::{Endpoint, Shape};
use test_support::{ForwardProxy, Provider, Server, eventually};

/// A name that no resolver knows (RFC 6761, section 6.4).
const HOST: &str = "login.invalid";

/// An app whose provider calls itself so, over https; and the file with its authority's certificate.
async fn app(host: &str, folder: &tempfile::TempDir) -> (TestApp, String) {
    let mut app = TestApp::on_sqlite(Shape::Plain).await;
    app.provider = Provider::start_https(Shape::Plain, host);
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, app.provider.authority().unwrap()).unwrap();
    (app, file.display().to_string())
}

#[tokio::test]
async fn the_provider_is_asked_through_the_proxy_that_the_environment_names() {
    let folder = tempfile::tempdir().unwrap();
    let (app, authority) = app(HOST, &folder).await;
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let proxy = ForwardProxy::start().await;
        let address = format!("http://ada:s%20ecret@127.0.0.1:{}", proxy.port);
        let settings =
            [("SSL_CERT_FILE", authority.as_str()), (name, &address), ("NO_PROXY", "example.org,10.0.0.0/8")];
        let server = app.server(&settings).await;
        assert_eq!(app.validate(&server, &app.good()).await.status, 200, "{name}");
        let heads = proxy.heads();
        assert!(heads[0].starts_with(&format!("connect {HOST}:")), "{name}: {heads:?}");
        // `ada:s ecret` in base64, written small.
        assert!(heads[0].contains("\r\nproxy-authorization: basic ywrhonmgzwnyzxq=\r\n"), "{name}: {heads:?}");
        let log = server.log().join("\n");
        assert!(!log.contains("s%20ecret") && !log.contains("s ecret"), "{log}");
    }
}

#[tokio::test]
async fn hosts_of_no_proxy_are_asked_directly() {
    let folder = tempfile::tempdir().unwrap();
    let (app, authority) = app("127.0.0.1", &folder).await;
    // Nobody listens at port 1.
    let dead = [("SSL_CERT_FILE", authority.as_str()), ("HTTPS_PROXY", "http://127.0.0.1:1")];
    for (name, hosts) in [("NO_PROXY", "127.0.0.0/8"), ("no_proxy", "example.org, 127.0.0.1")] {
        let server = app.server(&[&dead[..], &[(name, hosts)]].concat()).await;
        assert_eq!(app.validate(&server, &app.good()).await.status, 200, "{name}={hosts}");
    }
    let before = app.provider.seen(Endpoint::Discovery);
    let environment = app.environment(&dead);
    let server = Server::listening(bulkhead(), &[], &app.database, &borrowed(&environment)).await;
    eventually("the proxy is tried in vain", async || {
        let (_, health) = server.get_json("/api/v1/health/ready").await;
        (health["checks"]["auth"]["status"] == "unreachable").then_some(())
    })
    .await;
    server.log_line("onnection refused", "cannot fetch the identity provider's keys").await;
    assert_eq!(app.provider.seen(Endpoint::Discovery), before);
}

#[tokio::test]
async fn a_provider_over_http_has_a_variable_of_its_own() {
    // The provider of tests listens on this machine, which nothing but NO_PROXY exempts.
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.server(&[("HTTPS_PROXY", "http://127.0.0.1:1")]).await;
    assert!(!log_in(&app, &server).await.is_empty());
}
