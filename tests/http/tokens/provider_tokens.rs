//! Which of a provider's tokens the API accepts, and for how long.

use super::{EXPIRED, GOOD, INVALID, SHAPES};
use crate::support::TestApp;
use serde_json::{Value, json};
use test_support::eventually;
use test_support::provider::{CLIENT_ID, Shape, now};

#[tokio::test]
async fn cached_token_is_refused_once_expired() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let mut claims = app.provider.claims(&app.ada());
    // Five seconds of the leeway for clocks are left.
    claims["iat"] = (now() - 300).into();
    claims["exp"] = (now() - 55).into();
    let token = app.provider.token(&claims).encode();
    assert_eq!(app.validate(&server, &token).await.outcome(), GOOD);
    eventually("it has expired", async || {
        let answer = app.validate(&server, &token).await;
        (answer.outcome() == EXPIRED).then_some(())
    })
    .await;
    assert!(now() > claims["exp"].as_i64().unwrap() + 60, "not before its time");
}

#[tokio::test]
async fn the_providers_other_tokens_are_not_for_the_api() {
    // Of the access token and the ID token one is the API's, by the settings that the documentation names.
    for shape in SHAPES {
        let app = TestApp::on_sqlite(shape).await;
        let server = app.serve(&[]).await;
        let (access, id) = (app.provider.claims(&app.ada()), app.provider.id_claims(&app.ada(), "n"));
        let by_id_token = matches!(shape, Shape::Cognito | Shape::OktaIdToken);
        let (own, other) = if by_id_token { (id, access) } else { (access, id) };
        let token = |claims: &Value| app.provider.token(claims).encode();
        assert_eq!(app.validate(&server, &token(&own)).await.outcome(), GOOD, "{shape:?}");
        assert_eq!(app.validate(&server, &token(&other)).await.outcome(), INVALID, "{shape:?}");

        let by_id_token = app.serve(&[("OIDC_API_TOKEN", "id_token"), ("OIDC_AUDIENCE", CLIENT_ID)]).await;
        let id = token(&app.provider.id_claims(&app.ada(), "n"));
        assert_eq!(app.validate(&by_id_token, &id).await.outcome(), GOOD, "{shape:?} by ID token");
        let refresh = json!({"token_use": "refresh", "typ": "Refresh"});
        for (name, value) in refresh.as_object().unwrap() {
            let mut claims = app.provider.id_claims(&app.ada(), "n");
            claims[name] = value.clone();
            assert_eq!(app.validate(&by_id_token, &token(&claims)).await.outcome(), INVALID, "{shape:?} {name}");
        }
    }
}

#[tokio::test]
async fn the_type_at_jwt_can_be_demanded() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[("JWT_TYPE", "at+jwt")]).await;
    let claims = app.provider.claims(&app.ada());
    for (typ, expected) in [("at+jwt", GOOD), ("application/AT+jwt", GOOD), ("JWT", INVALID), ("", INVALID)] {
        let token = app.provider.token(&claims).header("typ", typ).encode();
        assert_eq!(app.validate(&server, &token).await.outcome(), expected, "{typ}");
    }
    // Whatever its claims state.
    for changes in [json!({"typ": "at+jwt"}), json!({"typ": "Bearer", "scope": "x"}), json!({"token_use": "access"})] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        for token in [app.provider.token(&claims), app.provider.token(&claims).without_header("typ")] {
            let answer = app.validate(&server, &token.encode()).await;
            assert_eq!(answer.outcome(), INVALID, "{changes}");
            let detail = &answer.body["error"]["detail"];
            assert_eq!(detail, "the header has not the type that JWT_TYPE demands (typ)");
        }
    }
}

#[tokio::test]
async fn a_bound_token_is_refused_with_the_reason() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    for settings in [&[][..], &[("OIDC_API_TOKEN", "id_token")]] {
        let server = app.serve(settings).await;
        let mut claims = app.provider.claims(&app.ada());
        claims["cnf"] = json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"});
        let answer = app.validate(&server, &app.provider.token(&claims).encode()).await;
        answer.assert_error(401, "AUTH_001");
        let detail = answer.body["error"]["detail"].as_str().unwrap();
        assert!(detail.contains("bound to a key (cnf)"), "{detail}");
    }
}

#[test]
fn documented_provider_settings_are_the_tested_ones() {
    let documentation = include_str!("../../../docs/auth.md").replace("CLIENT-ID", CLIENT_ID);
    for shape in SHAPES {
        for (name, value) in shape.settings() {
            assert!(documentation.contains(&format!("{name}={value}")), "{shape:?}: {name}={value}");
        }
    }
}
