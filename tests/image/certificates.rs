//! Whom it trusts: TLS to an identity provider, with an authority that the container was told of, and without.

use crate::container::Run;
use crate::world::Identity;
use serde_json::Value;
use test_support::Database;
use test_support::provider::Endpoint;

#[tokio::test]
async fn a_provider_is_trusted_by_the_authority_that_ssl_cert_file_names() {
    let Some(database) = Database::postgres().await else { return };
    let identity = Identity::of("127.0.0.1");
    let container = identity.introduce_trusted(Run::with(&database)).start();
    container.ready().await;
    let (_, body) = container.get("/api/v1/health/ready").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["status"], &body["checks"]["auth"]["status"]), (&"ready".into(), &"ok".into()), "{body}");
    assert_eq!((identity.provider.seen(Endpoint::Discovery), identity.provider.seen(Endpoint::Keys)), (1, 1));
}

#[tokio::test]
async fn a_provider_is_trusted_by_an_authority_in_place_of_the_images_own() {
    let Some(database) = Database::postgres().await else { return };
    let identity = Identity::of("127.0.0.1");
    let run = identity.introduce(Run::with(&database));
    let container = run.mount(&identity.authority(), "/etc/ssl/certs/ca-certificates.crt").start();
    container.ready().await;
}

#[tokio::test]
async fn a_provider_whose_authority_it_does_not_know_is_not_asked() {
    let Some(database) = Database::postgres().await else { return };
    let identity = Identity::of("127.0.0.1");
    let container = identity.introduce(Run::with(&database)).start();
    // It has authorities to go by, the image's own; this one is not among them.
    container.log_line("cannot fetch the identity provider's keys", "UnknownIssuer").await;
    let (status, body) = container.get("/api/v1/health/ready").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status.as_u16(), &body["checks"]["auth"]["status"]), (503, &"unreachable".into()), "{body}");
    assert_eq!(identity.provider.seen(Endpoint::Discovery), 0);
}
