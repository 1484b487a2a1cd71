//! What the provider answers over HTTP.

use super::Shared;
use super::desk::{Grant, Parameters, Refusal, parameters};
use super::fault::{Endpoint, Fault};
use super::keys::{Keys, Signer, token_hash};
use super::shape::{CLIENT_ID, Issue};
use super::token::Token;
use super::{CLIENT_SECRET, now};
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::Arc;

type Provider = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let paths = shared.shape.paths();
    Router::new()
        .route(&paths.discovery(), get(discovery))
        .route(&paths.keys, get(keys))
        .route(&format!("{}/moved", paths.keys), get(moved_keys))
        .route(&paths.authorize, get(authorize))
        .route("/consent/{key}", post(consent))
        .route(&paths.token, post(token))
        .route(&paths.end_session, get(end_session))
        .with_state(shared)
}

async fn discovery(State(shared): Provider) -> Result<Json<Value>, StatusCode> {
    shared.arrive(Endpoint::Discovery).await?;
    shared.heal_of(Fault::SlowMetadata).await;
    if shared.fails(Fault::NoMetadata) {
        return Err(StatusCode::NOT_FOUND);
    }
    let other = shared.fails(Fault::OtherIssuer);
    let issuer = if other { "https://login.evil.example/".to_owned() } else { shared.issuer() };
    let mut metadata = shared.shape.metadata(&shared.base, &issuer);
    if shared.moved_at().is_some() {
        metadata["jwks_uri"] = format!("{}{}/moved", shared.base, shared.shape.paths().keys).into();
    }
    if shared.fails(Fault::SecretInBodyOnly) {
        metadata["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]);
    }
    if shared.fails(Fault::OddMetadata) {
        metadata["end_session_endpoint"] = json!("");
        metadata["token_endpoint_auth_methods_supported"] = Value::Null;
    }
    if shared.fails(Fault::NoLogin) {
        let metadata = metadata.as_object_mut().expect("an object");
        metadata.retain(|name, _| !matches!(&**name, "authorization_endpoint" | "token_endpoint"));
    }
    Ok(Json(metadata))
}

async fn keys(State(shared): Provider) -> Result<Response, StatusCode> {
    shared.arrive(Endpoint::Keys).await?;
    let keys = shared.keys();
    key_set(&shared, Keys { rotations: shared.moved_at().unwrap_or(keys.rotations), ..keys })
}

async fn moved_keys(State(shared): Provider) -> Result<Response, StatusCode> {
    shared.arrive(Endpoint::Keys).await?;
    key_set(&shared, shared.keys())
}

fn key_set(shared: &Shared, keys: Keys) -> Result<Response, StatusCode> {
    if shared.fails(Fault::GarbageKeys) {
        return Ok(Html("<h1>We will be back soon</h1>").into_response());
    }
    let mut set = shared.shape.key_set(keys, &shared.issuer());
    for key in set["keys"].as_array_mut().ok_or(StatusCode::INTERNAL_SERVER_ERROR)? {
        if shared.fails(Fault::FullySpecified) && key["alg"] == "EdDSA" {
            key["alg"] = "Ed25519".into();
        }
        if shared.fails(Fault::OneKeyId) {
            key["kid"] = "one".into();
        }
    }
    if shared.fails(Fault::NoKeys) {
        set["keys"] = json!([]);
    }
    Ok(Json(set).into_response())
}

/// The consent page. A request that cannot be right never leads back: its redirect may be an attacker's.
async fn authorize(State(shared): Provider, RawQuery(query): RawQuery) -> Result<Response, StatusCode> {
    shared.arrive(Endpoint::Authorize).await?;
    let query = parameters(query.unwrap_or_default().as_bytes());
    let asked = query.and_then(|query| shared.desk().ask(&query));
    let key = match asked {
        Ok(key) => key,
        Err(refusal) => return Ok((StatusCode::BAD_REQUEST, format!("{refusal:?}")).into_response()),
    };
    let press = if shared.presses_itself() {
        "<script>addEventListener('load', () => document.querySelector('button').click())</script>"
    } else {
        ""
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><title>Log in</title><h1>Log in to {CLIENT_ID}?</h1>\
         <form method=\"post\" action=\"/consent/{key}\"><button>Log in</button></form>{press}</html>"
    );
    Ok(Html(page).into_response())
}

async fn consent(State(shared): Provider, Path(key): Path<String>) -> Response {
    match shared.desk().agree(&key) {
        Some(url) => (StatusCode::SEE_OTHER, [(LOCATION, url)]).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn token(State(shared): Provider, headers: HeaderMap, body: Bytes) -> Result<Response, StatusCode> {
    shared.arrive(Endpoint::Token).await?;
    let granted = authenticate(&shared, &headers, &body).and_then(|form| shared.desk().redeem(&form));
    Ok(match granted {
        Ok(_) if shared.fails(Fault::GarbageTokens) => Html("<h1>Thank you</h1>").into_response(),
        Ok(grant) => ([(CACHE_CONTROL, "no-store")], Json(tokens(&shared, &grant))).into_response(),
        Err(Refusal(error, what)) => {
            let body = Json(json!({"error": error, "error_description": what}));
            if error == "invalid_client" {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"provider\"")], body).into_response()
            } else {
                (StatusCode::BAD_REQUEST, body).into_response()
            }
        }
    })
}

/// The form of a client that has proved itself in one way, not two (RFC 6749, section 2.3).
fn authenticate(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<Parameters, Refusal> {
    let is_form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded"));
    if !is_form {
        return Err(Refusal("invalid_request", "content-type"));
    }
    let form = parameters(body)?;
    let basic = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(basic_credentials);
    let in_body = form.get("client_id").cloned().zip(form.get("client_secret").cloned());
    let (id, secret) = match (basic, in_body) {
        (Some(_), Some(_)) => return Err(Refusal("invalid_request", "two ways of authentication")),
        (Some(_), None) if shared.fails(Fault::SecretInBodyOnly) => {
            return Err(Refusal("invalid_client", "client_secret_post only"));
        }
        (Some(basic), None) => basic.ok_or(Refusal("invalid_client", "authorization"))?,
        (None, Some(in_body)) => in_body,
        (None, None) => return Err(Refusal("invalid_client", "no authentication")),
    };
    if id != CLIENT_ID || secret != CLIENT_SECRET || shared.fails(Fault::ClientRejected) {
        return Err(Refusal("invalid_client", "client"));
    }
    Ok(form)
}

/// Id and secret, each form-encoded before they were joined (RFC 6749, section 2.3.1).
fn basic_credentials(header: &str) -> Option<(String, String)> {
    let encoded = header.strip_prefix("Basic ")?;
    let joined = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    // As a form of one field without a name.
    let decoded = |text: &str| {
        let form = format!("={text}").into_bytes();
        url::form_urlencoded::parse(&form).next().map(|(_, value)| value.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?))
}

fn tokens(shared: &Shared, grant: &Grant) -> Value {
    let issuer = shared.issuer();
    let shape = shared.shape;
    let issue = Issue { issuer: &issuer, person: &grant.person, now: now() };
    let changed = shared.changed.lock().expect("the changed claims").clone();
    let access = Token::new(shared.keys(), &with_changes(shape.access_claims(&issue), &changed.access)).encode();

    let mut claims = shape.id_claims(&issue, &grant.nonce);
    let signer = if shared.fails(Fault::FullySpecified) { Signer::Ed } else { Signer::Rsa };
    if claims["at_hash"].is_string() {
        claims["at_hash"] = token_hash(&access, signer).into();
    }
    if shared.fails(Fault::WrongNonce) {
        claims["nonce"] = "of-another-login".into();
    }
    if shared.fails(Fault::NoNonce) {
        claims.as_object_mut().expect("an object").remove("nonce");
    }
    if shared.fails(Fault::WrongAudience) {
        claims["aud"] = "another-client".into();
    }
    if shared.fails(Fault::WrongParty) {
        claims["aud"] = json!([CLIENT_ID, "another-client"]);
        claims["azp"] = "another-client".into();
    }
    if shared.fails(Fault::ExpiredIdToken) {
        claims["iat"] = (issue.now - 7200).into();
        claims["exp"] = (issue.now - 3600).into();
    }
    let claims = with_changes(claims, &changed.id);
    let mut id = Token::new(shared.keys(), &claims).by(signer);
    if shared.fails(Fault::FullySpecified) {
        id = id.header("alg", "Ed25519");
    }
    if shared.fails(Fault::TypedIdToken) {
        id = id.header("typ", "at+jwt");
    }
    if shared.fails(Fault::ForgedIdToken) {
        let known = shared.keys().id(Signer::Rsa);
        id = id.by(Signer::Stranger).header("kid", known);
    }
    let mut answer = json!({
        "access_token": access,
        "id_token": id.encode(),
        "token_type": if shared.fails(Fault::BoundTokens) {
            "DPoP"
        } else if shared.fails(Fault::LowercaseType) {
            "bearer"
        } else {
            "Bearer"
        },
        "expires_in": shape.lifetime(),
        "scope": "openid profile email",
    });
    if let Some(claims) = shape.refresh_claims(&issue) {
        answer["refresh_token"] = Token::new(shared.keys(), &claims).encode().into();
        answer["refresh_expires_in"] = 1800.into();
        answer["not-before-policy"] = 0.into();
        answer["session_state"] = "5e1b".into();
    }
    answer
}

fn with_changes(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// Whether a token, by its claims alone, is one that says to the client who has logged in.
fn is_id_token(token: &str) -> bool {
    let claims = token.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|json| serde_json::from_slice::<Value>(&json).ok()).unwrap_or_default();
    claims["aud"] == CLIENT_ID && claims["nonce"].is_string()
}

/// Ends the session, where the request says who asks: by an ID token, or by the client's id.
async fn end_session(State(shared): Provider, RawQuery(query): RawQuery) -> Result<Response, StatusCode> {
    shared.arrive(Endpoint::EndSession).await?;
    let query = parameters(query.unwrap_or_default().as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let known_client = query.get("client_id").is_some_and(|id| id == CLIENT_ID);
    let hinted = query.get("id_token_hint").is_some_and(|token| is_id_token(token));
    let allowed = if shared.shape.logout_needs_hint() { hinted } else { known_client || hinted };
    let target = query.get(shared.shape.logout_parameter()).filter(|url| shared.desk().redirects.contains(url));
    Ok(match target {
        Some(url) if allowed => (StatusCode::FOUND, [(LOCATION, url.clone())]).into_response(),
        _ => (StatusCode::BAD_REQUEST, "logout refused").into_response(),
    })
}
