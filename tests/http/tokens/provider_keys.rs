//! A provider's keys: unknown ones, rotated ones, and none at all.

use super::{GOOD, SIGNATURE};
use crate::bulkhead;
use crate::login::log_in;
use crate::support::{TestApp, assert_log_without, borrowed};
use serde_json::json;
use std::time::{Duration, Instant};
use test_support::provider::{Endpoint, Fault, Shape, Signer};
use test_support::{Provider, Server, eventually};

#[tokio::test]
async fn unknown_key_flood_costs_one_provider_request() {
    const FLOOD: usize = 400;
    let app = TestApp::on_sqlite(Shape::Plain).await;
    // They come from many clients, which have one address here.
    let server = app.server(&[("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "512")]).await;
    let before = app.provider.seen(Endpoint::Keys);
    let claims = app.provider.claims(&app.ada());
    // The one request hangs, so that nothing is over before the flood is there.
    app.provider.fail(Fault::Slow);
    let flood: Vec<String> =
        (0..FLOOD).map(|n| app.provider.token(&claims).header("kid", format!("unknown-{n}")).encode()).collect();
    let attacks = flood.iter().map(|token| async { app.validate(&server, token).await.status });
    let meanwhile = async {
        eventually("the provider is asked", async || (app.provider.seen(Endpoint::Keys) > before).then_some(())).await;
        let started = Instant::now();
        for signer in Signer::GOOD {
            let fresh = app.provider.token(&claims).by(signer).encode();
            assert_eq!(app.validate(&server, &fresh).await.outcome(), GOOD);
        }
        let took = started.elapsed();
        app.provider.heal();
        took
    };
    let (answers, took) = futures_util::future::join(futures_util::future::join_all(attacks), meanwhile).await;
    // The provider answered nothing until then: each would have waited for some seconds.
    assert!(took < Duration::from_secs(10), "good tokens had to wait for {took:?}");
    assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
    assert_eq!(app.provider.seen(Endpoint::Keys), before + 1);

    // Later ones are no reason to ask again, whatever they are called.
    for n in 0..20 {
        let token = app.provider.token(&claims).header("kid", format!("later-{n}")).encode();
        assert_eq!(app.validate(&server, &token).await.outcome(), SIGNATURE);
    }
    assert_eq!(app.provider.seen(Endpoint::Keys), before + 1);
    assert_log_without(&server, flood.iter().map(String::as_str));
}

#[tokio::test]
async fn rotated_key_is_used_and_the_old_one_refused() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let old = app.good();
    assert_eq!(app.validate(&server, &old).await.outcome(), GOOD);
    app.provider.rotate();
    assert_eq!(app.validate(&server, &old).await.outcome(), GOOD, "nobody has heard of the rotation yet");
    assert_eq!(app.validate(&server, &app.good()).await.outcome(), GOOD);
    assert_eq!(app.validate(&server, &old).await.outcome(), SIGNATURE, "though it was good before");
    // Half a minute has not gone by.
    app.provider.rotate();
    assert_eq!(app.validate(&server, &app.good()).await.outcome(), SIGNATURE);
}

#[tokio::test]
async fn known_keys_go_on_when_the_provider_goes() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    // The shortest time that keys may be kept, so that the server soon sees that nobody is there.
    let server = app.server(&[("JWKS_CACHE_TTL_SECONDS", "10")]).await;
    app.provider.close();
    let good = || Signer::GOOD.map(|signer| app.provider.token(&app.provider.claims(&app.ada())).by(signer));
    let pass = async |when: &str| {
        for token in good() {
            assert_eq!(app.validate(&server, &token.encode()).await.outcome(), GOOD, "{when}");
        }
    };
    pass("at once").await;
    let unknown = good()[0].clone().header("kid", "unknown").encode();
    assert_eq!(app.validate(&server, &unknown).await.outcome(), SIGNATURE, "which is no reason for a 503");
    eventually("the server sees it", async || {
        let (status, health) = server.get_json("/api/v1/health/ready").await;
        assert_eq!(status, 200, "{health}");
        (health["checks"]["auth"]["status"] == "stale").then_some(())
    })
    .await;
    pass("with keys gone stale").await;
    app.provider.open();
    eventually("the server sees that it is back", async || {
        let (_, health) = server.get_json("/api/v1/health/ready").await;
        (health["checks"]["auth"]["status"] == "ok").then_some(())
    })
    .await;
    pass("afterwards").await;
}

#[tokio::test]
async fn without_keys_every_token_is_refused() {
    let refused = without_keys(Provider::close, Provider::open);
    let faults = [Fault::Unavailable, Fault::GarbageKeys, Fault::NoKeys, Fault::OtherIssuer];
    let failing = faults.map(|fault| without_keys(move |provider| provider.fail(fault), Provider::heal));
    futures_util::future::join(refused, futures_util::future::join_all(failing)).await;
}

/// A server that starts while the provider is in a bad state, from `spoil` to `mend`.
async fn without_keys(spoil: impl FnOnce(&Provider), mend: impl FnOnce(&Provider)) {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    spoil(&app.provider);
    let environment = app.environment(&[]);
    let server = Server::listening(bulkhead(), &[], &app.database, &borrowed(&environment)).await;
    let health = eventually("all else is ready", async || {
        let (status, health) = server.get_json("/api/v1/health/ready").await;
        assert_eq!(status, 503, "{health}");
        let ok = |check: &str| health["checks"][check]["status"] == "ok";
        (ok("process") && ok("schema")).then_some(health)
    })
    .await;
    let auth = &health["checks"]["auth"];
    assert_eq!((&auth["status"], &auth["error"]), (&"unreachable".into(), &"SYS_004".into()), "{health}");
    let token = app.good();
    let answer = app.validate(&server, &token).await;
    assert_eq!(answer.outcome(), (503, "SYS_004"), "{}", answer.body);
    // What needs no token needs no keys.
    for path in ["/", "/api/v1/health/live", "/api/v1/version"] {
        assert_eq!(server.get_json(path).await.0, 200, "{path}");
    }

    mend(&app.provider);
    server.wait_until_ready().await;
    assert_eq!(app.validate(&server, &token).await.outcome(), GOOD);
    assert_log_without(&server, [token.as_str()]);
}

#[tokio::test]
async fn keys_that_move_to_another_address_are_found() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let old = app.good();
    assert_eq!(app.validate(&server, &old).await.outcome(), GOOD);
    let discovered = app.provider.seen(Endpoint::Discovery);
    app.provider.move_keys();
    assert_eq!(app.validate(&server, &app.good()).await.outcome(), GOOD);
    assert_eq!(app.validate(&server, &old).await.outcome(), SIGNATURE, "though the old address still has its key");
    assert_eq!(app.provider.seen(Endpoint::Discovery), discovered + 1);
    // The old and the new address; and no more for other unknown keys.
    let asked = app.provider.seen(Endpoint::Keys);
    for n in 0..10 {
        let token = app.provider.token(&app.provider.claims(&app.ada())).header("kid", format!("unknown-{n}"));
        assert_eq!(app.validate(&server, &token.encode()).await.outcome(), SIGNATURE);
    }
    assert_eq!((app.provider.seen(Endpoint::Keys), app.provider.seen(Endpoint::Discovery)), (asked, discovered + 1));
}

#[tokio::test]
async fn new_keys_are_found_without_the_metadata() {
    for fault in [Fault::NoMetadata, Fault::SlowMetadata] {
        let app = TestApp::on_sqlite(Shape::Plain).await;
        let server = app.serve(&[]).await;
        assert_eq!(app.validate(&server, &app.good()).await.outcome(), GOOD);
        app.provider.fail(fault);
        app.provider.rotate();
        assert_eq!(app.validate(&server, &app.good()).await.outcome(), GOOD, "{fault:?}");
        app.provider.heal();
        log_in(&app, &server).await;
    }
}

#[tokio::test]
async fn new_key_under_an_old_id_is_noticed() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let old = app.good();
    assert_eq!(app.validate(&server, &old).await.outcome(), GOOD);
    app.provider.replace_keys();
    let new = app.good();
    let asked = app.provider.seen(Endpoint::Keys);
    assert_eq!(app.validate(&server, &new).await.outcome(), GOOD);
    assert_eq!(app.validate(&server, &old).await.outcome(), SIGNATURE, "though it was good before");
    // What is forged is no reason to ask again and again.
    for n in 0..10 {
        let forged = app.provider.token(&app.provider.claims(&app.ada())).encode_tampered(&json!({"n": n}));
        assert_eq!(app.validate(&server, &forged).await.outcome(), SIGNATURE);
    }
    assert_eq!(app.provider.seen(Endpoint::Keys), asked + 1);
    assert_eq!(app.validate(&server, &new).await.outcome(), GOOD);
}

#[tokio::test]
async fn two_rotations_in_a_row_hold_no_login_up_for_long() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    assert_eq!(app.validate(&server, &app.good()).await.outcome(), GOOD);
    for rotate in [Provider::rotate, Provider::replace_keys, Provider::move_keys] {
        rotate(&app.provider);
        // Whoever has a token, good or not, makes the server look for keys, and nobody may again for half a minute.
        app.validate(&server, &app.good()).await;
        rotate(&app.provider);
        let unseen = app.good();
        assert_eq!(app.validate(&server, &unseen).await.outcome(), SIGNATURE);
        let started = Instant::now();
        let token = log_in(&app, &server).await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(12), "{took:?}");
        assert_eq!(app.validate(&server, &token).await.outcome(), GOOD);
        assert_eq!(app.validate(&server, &unseen).await.outcome(), GOOD, "what a login finds is there for all");
    }
}

#[tokio::test]
async fn a_login_does_not_end_with_keys_fetched_before_they_changed() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    assert_eq!(app.validate(&server, &app.good()).await.outcome(), GOOD);
    // The keys are fetched at once, and then the metadata is waited for.
    app.provider.fail(Fault::SlowMetadata);
    let asked = app.provider.seen(Endpoint::Keys);
    let unknown = app.provider.token(&app.provider.claims(&app.ada())).header("kid", "unknown").encode();
    let login = async {
        eventually("the keys are fetched", async || (app.provider.seen(Endpoint::Keys) > asked).then_some(())).await;
        app.provider.rotate();
        log_in(&app, &server).await
    };
    let (refused, token) = futures_util::future::join(app.validate(&server, &unknown), login).await;
    assert_eq!(refused.outcome(), SIGNATURE);
    assert_eq!(app.validate(&server, &token).await.outcome(), GOOD);
    assert!(app.provider.seen(Endpoint::Keys) <= asked + 2);
}

#[tokio::test]
async fn keys_of_different_types_may_share_an_id() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    app.provider.fail(Fault::OneKeyId);
    let server = app.serve(&[]).await;
    for signer in Signer::GOOD {
        let token = app.provider.token(&app.provider.claims(&app.ada())).by(signer).header("kid", "one");
        assert_eq!(app.validate(&server, &token.encode()).await.outcome(), GOOD, "{signer:?}");
        let other = if signer == Signer::Rsa { "ES256" } else { "RS256" };
        let token = token.header("alg", other);
        assert_eq!(app.validate(&server, &token.encode()).await.outcome(), SIGNATURE, "{signer:?} as {other}");
    }
}

#[tokio::test]
async fn ed25519_has_two_names() {
    for fault in [None, Some(Fault::FullySpecified)] {
        let app = TestApp::on_sqlite(Shape::Plain).await;
        if let Some(fault) = fault {
            app.provider.fail(fault);
        }
        let server = app.serve(&[]).await;
        for name in ["EdDSA", "Ed25519"] {
            let token = app.provider.token(&app.provider.claims(&app.ada())).by(Signer::Ed).header("alg", name);
            assert_eq!(app.validate(&server, &token.encode()).await.outcome(), GOOD, "{name}, {fault:?}");
        }
        let token = log_in(&app, &server).await;
        assert_eq!(app.validate(&server, &token).await.outcome(), GOOD, "{fault:?}");
    }
}
