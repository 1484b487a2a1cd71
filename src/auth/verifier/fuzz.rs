//! What must hold of tokens: see [`crate::fuzzing`].

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use super::{
    Heading, LEEWAY_SECONDS, Signed, TENANT_CLAIMS, TokenRules, Verifier, check_registered_claims, check_token_type,
    parse_header, read_signed,
};
use crate::auth::claims::RoleClaim;
use crate::auth::key_cache::KeyCache;
use crate::auth::key_set::KeySet;
use crate::clock::unix_seconds;
use crate::config::{ApiToken, TokenType};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const ISSUER: &str = "https://login.example.org/";
const AUDIENCE: &str = "bulkhead";
const KEY_ID: &str = "1";
const LIFETIME: Duration = Duration::from_hours(1);

static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let x = BASE64_URL_SAFE_NO_PAD.encode(PAIR.public_key());
    let jwk: Jwk = serde_json::from_value(json!({"kty": "OKP", "crv": "Ed25519", "kid": KEY_ID, "x": x})).unwrap();
    KeySet::from(jwk)
});

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let rules = TokenRules {
        audiences: vec![AUDIENCE.to_owned()],
        api_token: ApiToken::Access,
        tenant_claim: None,
        token_type: TokenType::Any,
        role_claim: "role".to_owned(),
        max_lifetime: LIFETIME,
    };
    Verifier::new(rules, Arc::new(KeyCache::new(None, LIFETIME)), 0)
});

/// A token as it is sent, or its header and its payload in JSON, in a line each, which are then signed; `NOW` and `LATER` in them
/// become times. Nobody makes up a signature; other readers see the same in what is taken; and the claims keep the rules.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((header, payload)) = text.split_once('\n') else {
        if let Ok(heading) = parse_header(text) {
            others_read_the_same(text, &heading);
            assert!(read_signed(&KEYS, text, &heading).is_err(), "nobody has signed {text}");
        }
        return;
    };
    let now = unix_seconds();
    let payload = payload.replace("NOW", &now.to_string()).replace("LATER", &(now + 600).to_string());
    let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(&payload));
    let token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(PAIR.sign(message.as_bytes())));
    let Ok(heading) = parse_header(&token) else { return };
    others_read_the_same(&token, &heading);
    let read = read_signed(&KEYS, &token, &heading);
    let ours = heading.algorithm == Algorithm::EdDSA && heading.key_id == KEY_ID;
    assert!(ours || read.is_err(), "no key fits {header}");
    let Ok(claims) = read else { return };
    let others: Map<String, Value> = serde_json::from_str(&payload).unwrap();
    for (name, value) in &others {
        assert_eq!(claims.get(name), Some(value), "{payload}");
    }
    if check_registered_claims(&claims, ISSUER, &VERIFIER.rules.audiences).is_err() {
        return;
    }
    let number = |name: &str| others.get(name).and_then(Value::as_f64);
    #[allow(clippy::cast_precision_loss, reason = "exact until the year 285 million")]
    let (now, leeway) = (now as f64, LEEWAY_SECONDS as f64 + 1.0);
    let (issued_at, expires_at) = (number("iat").unwrap(), number("exp").unwrap());
    assert!(issued_at <= now + leeway && now <= expires_at + leeway && issued_at < expires_at, "{payload}");
    assert!(number("nbf").is_none_or(|time| time <= now + leeway), "{payload}");
    assert_eq!(others["iss"], ISSUER);
    assert!(others["aud"] == AUDIENCE || others["aud"].as_array().unwrap().iter().any(|name| name == AUDIENCE));
    assert!((1..=255).contains(&others["sub"].as_str().unwrap().len()));
    assert!(others.get("events").is_none_or(Value::is_null));
    let signed = Signed { heading, claims, generation: 0 };
    if let (Ok(()), Ok(read)) = (check_token_type(&VERIFIER.rules, &signed), VERIFIER.validate_claims(&signed.claims)) {
        assert!(expires_at - issued_at < LIFETIME.as_secs_f64() + 1.0, "{payload}");
        assert!(TENANT_CLAIMS.iter().any(|name| signed.claims.get(name) == Some(&Value::from(read.tenant.as_str()))));
        assert!((3..=128).contains(&read.tenant.len()) && read.tenant.is_ascii() && read.tenant != "system");
        assert_eq!(others["sub"], read.subject);
        if let RoleClaim::Role(role) = read.role {
            let role = serde_json::to_value(role).unwrap();
            let said = signed.claims.get("role").unwrap();
            assert!(*said == role || said.as_array().unwrap().contains(&role), "{payload}");
        }
        let other_use = ["nonce", "at_hash", "c_hash", "s_hash"].iter().any(|name| signed.claims.own(name).is_some());
        let says_so =
            signed.heading.is_access_token || ["token_use", "typ"].iter().any(|name| signed.claims.own(name).is_some());
        assert!(!other_use || says_so, "an ID token calls: {payload}");
        assert!(signed.claims.own("cnf").is_none(), "it is bound to a key: {payload}");
    }
}

fn others_read_the_same(token: &str, heading: &Heading) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let json = BASE64_URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(&json), parts[0], "a header has one spelling");
    let header: Map<String, Value> = serde_json::from_slice(&json).unwrap();
    let names: &[&str] = match heading.algorithm {
        Algorithm::RS256 => &["RS256"],
        Algorithm::ES256 => &["ES256"],
        Algorithm::EdDSA => &["EdDSA", "Ed25519"],
        other => panic!("{other:?} is not taken"),
    };
    assert!(names.contains(&header["alg"].as_str().unwrap()), "{header:?}");
    assert_eq!(header["kid"], heading.key_id);
    assert!(!heading.key_id.is_empty() && header.get("crit").is_none_or(Value::is_null), "{header:?}");
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or("jwt").to_ascii_lowercase();
    assert_eq!(typ.trim_start_matches("application/") == "at+jwt", heading.is_access_token, "{header:?}");
}
