//! The provider from outside: were it lax, the tests that lean on it would prove nothing.

#![allow(clippy::unwrap_used)]

use super::{CLIENT_ID, CLIENT_SECRET, Endpoint, Fault, Person, Provider, REDIRECT_URL, Shape};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use url::form_urlencoded;

// The pair of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

const ALL: [Shape; 7] =
    [Shape::Plain, Shape::Cognito, Shape::Auth0, Shape::Entra, Shape::Okta, Shape::OktaIdToken, Shape::Keycloak];

async fn get(url: &str) -> reqwest::Response {
    // No connection is kept: each request says anew whether somebody listens.
    reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap().get(url).send().await.unwrap()
}

async fn metadata(provider: &Provider) -> Value {
    let issuer = provider.issuer();
    let metadata = get(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))).await;
    let metadata: Value = metadata.json().await.unwrap();
    assert_eq!(metadata["issuer"], issuer.as_str());
    metadata
}

/// A code, by way of the consent page.
async fn code(provider: &Provider) -> String {
    let endpoint = metadata(provider).await["authorization_endpoint"].as_str().unwrap().to_owned();
    let query = [
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT_URL),
        ("scope", "openid"),
        ("state", "s"),
        ("nonce", "n"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let consent = provider.consent(&format!("{endpoint}?{query}")).await;
    assert_eq!(consent.state, "s");
    consent.code
}

/// Redeems a fresh code, after `prove` has said who asks; the status and the answer.
async fn redeem(
    provider: &Provider,
    more: &[(&str, &str)],
    prove: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> (u16, Value) {
    let code = code(provider).await;
    let endpoint = metadata(provider).await["token_endpoint"].as_str().unwrap().to_owned();
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", REDIRECT_URL),
        ("code_verifier", VERIFIER),
    ];
    form.extend_from_slice(more);
    let answer = prove(reqwest::Client::new().post(endpoint).form(&form)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn basic(id: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret))))
}

fn claims(token: &Value) -> Value {
    let claims = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn every_shape_leads_from_metadata_to_tokens() {
    for shape in ALL {
        let provider = Provider::start(shape);
        let keys = metadata(&provider).await["jwks_uri"].as_str().unwrap().to_owned();
        let keys: Value = get(&keys).await.json().await.unwrap();
        assert!(!keys["keys"].as_array().unwrap().is_empty(), "{shape:?}");
        let (status, tokens) =
            redeem(&provider, &[], |request| request.header("authorization", basic(CLIENT_ID, CLIENT_SECRET))).await;
        assert_eq!(status, 200, "{shape:?}: {tokens}");
        let (access, id) = (claims(&tokens["access_token"]), claims(&tokens["id_token"]));
        for claims in [&access, &id] {
            assert_eq!(claims["iss"], provider.issuer().as_str(), "{shape:?}");
            assert!(claims["exp"].as_i64() > claims["iat"].as_i64(), "{shape:?}");
        }
        assert_eq!((&id["nonce"], &id["aud"]), (&json!("n"), &json!(CLIENT_ID)), "{shape:?}");
        assert_eq!(access["aud"] == Value::Null, shape == Shape::Cognito, "{shape:?}");
    }
}

#[tokio::test]
async fn only_the_client_redeems_a_code() {
    let provider = Provider::start(Shape::Plain);
    let body = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    assert_eq!(redeem(&provider, &body, |request| request).await.0, 200);

    let wrong = [("client_id", CLIENT_ID), ("client_secret", "guessed")];
    assert_eq!(redeem(&provider, &wrong, |request| request).await.1["error"], "invalid_client");
    assert_eq!(redeem(&provider, &[], |request| request).await.1["error"], "invalid_client");
    for header in [basic(CLIENT_ID, "guessed"), basic("other", CLIENT_SECRET), "Basic ???".to_owned()] {
        let (status, answer) = redeem(&provider, &[], |request| request.header("authorization", header)).await;
        assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")));
    }
    // A secret that was not encoded is another secret.
    let bare = format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    assert_eq!(redeem(&provider, &[], |request| request.header("authorization", bare)).await.0, 401);
    let both = |request: RequestBuilder| request.header("authorization", basic(CLIENT_ID, CLIENT_SECRET));
    assert_eq!(redeem(&provider, &body, both).await.1["error"], "invalid_request");

    provider.fail(Fault::SecretInBodyOnly);
    assert_eq!(redeem(&provider, &[], both).await.0, 401);
    assert_eq!(redeem(&provider, &body, |request| request).await.0, 200);
}

#[tokio::test]
async fn a_login_that_may_not_be_gets_no_consent_page() {
    let provider = Provider::start(Shape::Plain);
    let endpoint = metadata(&provider).await["authorization_endpoint"].as_str().unwrap().to_owned();
    let answer = get(&format!("{endpoint}?response_type=code&client_id={CLIENT_ID}")).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(provider.seen(Endpoint::Authorize), 1);
}

#[tokio::test]
async fn it_fails_on_demand_and_heals() {
    let provider = Provider::start(Shape::Plain);
    let url = format!("{}/.well-known/openid-configuration", provider.issuer());
    provider.fail(Fault::Unavailable);
    assert_eq!(get(&url).await.status(), 503);
    provider.heal();
    assert_eq!(get(&url).await.status(), 200);

    provider.fail(Fault::Slow);
    let held = tokio::spawn({
        let url = url.clone();
        async move { get(&url).await.status() }
    });
    crate::eventually("the request is there", async || (provider.seen(Endpoint::Discovery) == 3).then_some(())).await;
    assert!(!held.is_finished());
    provider.heal();
    assert_eq!(held.await.unwrap(), 200);

    provider.close();
    assert!(reqwest::get(&url).await.unwrap_err().is_connect());
    provider.open();
    assert_eq!(get(&url).await.status(), 200);
}

#[tokio::test]
async fn a_logout_leads_back_only_to_registered_pages() {
    for shape in ALL {
        let provider = Provider::start(shape);
        let endpoint = metadata(&provider).await["end_session_endpoint"].as_str().unwrap().to_owned();
        let hint = provider.token(&provider.id_claims(&Person::ada(shape), "n")).encode();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let status = async |target: &str| {
            let query = [("client_id", CLIENT_ID), ("id_token_hint", &hint), (shape.logout_parameter(), target)];
            client.get(&endpoint).query(&query).send().await.unwrap().status().as_u16()
        };
        assert_eq!(status(REDIRECT_URL).await, 302, "{shape:?}");
        assert_eq!(status("http://evil.example/").await, 400, "{shape:?}");
    }
}

#[tokio::test]
async fn https_answers_only_who_trusts_its_authority() {
    let provider = Provider::start_https(Shape::Plain, "127.0.0.1");
    let url = format!("{}/.well-known/openid-configuration", provider.issuer());
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert!(reqwest::get(&url).await.unwrap_err().is_connect());
    let authority = reqwest::Certificate::from_pem(provider.authority().unwrap().as_bytes()).unwrap();
    let trusting = reqwest::Client::builder().tls_certs_merge([authority]).build().unwrap();
    let metadata: Value = trusting.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["issuer"], provider.issuer());
    assert!(metadata["jwks_uri"].as_str().unwrap().starts_with("https://"));
}
