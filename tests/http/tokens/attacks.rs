//! Tokens that must be refused, one by one, each with its answer; and the few that must be accepted.

use super::{BAD_TENANT, EXPIRED, GOOD, INVALID, NO_TENANT, NO_TOKEN, Outcome, REFUSED, ROLE, SIGNATURE};
use crate::support::{TestApp, assert_log_without};
use serde_json::{Value, json};
use test_support::provider::{CLIENT_ID, PublicKeyForm, Shape, Signature, Signer, Token, now};
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(good_tokens_pass_and_attacks_do_not);

/// What a token is for, itself, and what must come of it.
struct Case {
    name: String,
    token: String,
    expected: Outcome,
}

/// Tokens in the making, all by one provider for one person.
struct Cases<'w> {
    app: &'w TestApp,
    all: Vec<Case>,
}

impl Cases<'_> {
    /// The claims that are good.
    fn claims(&self) -> Value {
        self.app.provider.claims(&self.app.ada())
    }

    fn token(&self) -> Token {
        self.app.provider.token(&self.claims())
    }

    fn add(&mut self, expected: Outcome, name: impl Into<String>, token: impl Into<String>) {
        self.all.push(Case { name: name.into(), token: token.into(), expected });
    }

    /// A good token but for these claims; null takes one away.
    fn claim(&mut self, expected: Outcome, changes: &Value) {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let token = self.app.provider.token(&claims).encode();
        self.add(expected, format!("claims {changes}"), token);
    }

    /// A good token but for one claim's value, which is JSON that `serde_json` itself would not write.
    fn raw_claim(&mut self, expected: Outcome, name: &str, json: &str) {
        let mut claims = self.claims();
        claims[name] = "REPLACED".into();
        let token = self.token().raw_claims(claims.to_string().replace("\"REPLACED\"", json)).encode();
        self.add(expected, format!("claim {name}: {json}"), token);
    }
}

fn good(cases: &mut Cases<'_>) {
    let now = now();
    for signer in Signer::GOOD {
        let token = cases.token().by(signer).encode();
        cases.add(GOOD, format!("by {signer:?}"), token);
    }
    for kind in ["at+jwt", "application/at+jwt", "jwt"] {
        let token = cases.token().header("typ", kind).encode();
        cases.add(GOOD, format!("of type {kind}"), token);
    }
    let token = cases.token().without_header("typ").encode();
    cases.add(GOOD, "of no type", token);
    let token = cases.token().by(Signer::Ed).header("alg", "Ed25519").encode();
    cases.add(GOOD, "by Ed25519", token);
    // Where the header says that it is an access token, no claim but one that says otherwise counts.
    for kind in ["at+jwt", "Application/AT+JWT"] {
        let mut claims = cases.claims();
        for name in ["nonce", "at_hash", "auth_time", "sid"] {
            claims[name] = "x".into();
        }
        let token = cases.app.provider.token(&claims).header("typ", kind).encode();
        cases.add(GOOD, format!("{kind} with claims of an ID token"), token);
    }
    for changes in [
        json!({"aud": ["someone-else", CLIENT_ID]}),
        json!({"nbf": null}),
        json!({"iat": now - 800, "exp": now - 30}),
        json!({"nbf": now + 30}),
        json!({"iat": now + 30}),
        json!({"iat": now, "exp": now + 3600}),
        json!({"role": ["owner", "viewer"]}),
        json!({"typ": "Bearer"}),
        json!({"typ": "bearer"}),
        json!({"typ": "JWT"}),
        json!({"typ": "at+jwt"}),
        json!({"token_use": "access"}),
        // As Keycloak's access tokens were until version 24, and are by a mapper since.
        json!({"typ": "Bearer", "nonce": "n"}),
        // As in access tokens of Auth0, Okta and Entra, or after RFC 9068.
        json!({"azp": "x", "gty": "client-credentials"}),
        json!({"auth_time": now, "cid": "x"}),
        json!({"auth_time": now, "sid": "x", "scp": ["openid"]}),
        json!({"auth_time": now, "acr": "0", "amr": ["pwd"], "scope": "openid"}),
        json!({"sid": "x", "client_id": "x"}),
        json!({"token_use": "access", "auth_time": now}),
        json!({"typ": "Bearer", "auth_time": now, "sid": "x", "acr": "1"}),
        json!({"sub": "jürgen@example.org"}),
        json!({"tenant_id": "on-trial"}),
        json!({"tenant_id": null, "organization_id": "clinic-1"}),
        json!({"tenant_id": null, "org_id": "clinic-1"}),
        json!({"tenant_id": null, "custom:tenant_id": "clinic-1"}),
    ] {
        cases.claim(GOOD, &changes);
    }
    cases.raw_claim(GOOD, "exp", &format!("{}.5", now + 300));
    for name in ["nonce", "at_hash", "auth_time", "events", "cnf", "nbf", "typ", "token_use"] {
        cases.raw_claim(GOOD, name, "null");
    }
}

fn algorithms_and_keys(cases: &mut Cases<'_>) {
    for spelling in ["none", "None", "NONE", "nOnE", ""] {
        let token = cases.token().unsigned(spelling).encode();
        cases.add(SIGNATURE, format!("alg {spelling:?}, unsigned"), token);
    }
    let token = cases.token().header("alg", "none").encode();
    cases.add(SIGNATURE, "alg none, signed", token);
    for form in [PublicKeyForm::Pem, PublicKeyForm::Der, PublicKeyForm::Pkcs1, PublicKeyForm::Jwk] {
        let token = cases.token().keyed_with_the_public_key(form).encode();
        cases.add(SIGNATURE, format!("HS256 keyed with the public key, {form:?}"), token);
    }
    let token = cases.token().signed_with(Signature::Empty).encode();
    cases.add(SIGNATURE, "RS256, unsigned", token);
    for (algorithm, signature) in [("RS384", Signature::Rs384), ("PS256", Signature::Ps256)] {
        let token = cases.token().header("alg", algorithm).signed_with(signature.clone()).encode();
        cases.add(SIGNATURE, format!("{algorithm} by the RSA key"), token);
        let token = cases.token().signed_with(signature).encode();
        cases.add(SIGNATURE, format!("RS256 says the header, {algorithm} is the signature"), token);
    }
    // Every key under the algorithm of every other.
    for signer in Signer::GOOD {
        for other in Signer::GOOD.into_iter().filter(|other| *other != signer) {
            let token = cases.token().by(signer).header("alg", other.algorithm()).encode();
            cases.add(SIGNATURE, format!("{} with the key {signer:?}", other.algorithm()), token);
            if signer != Signer::Ed {
                let token = cases.token().by(signer).header("alg", "Ed25519").encode();
                cases.add(SIGNATURE, format!("Ed25519 with the key {signer:?}"), token);
            }
            let id = cases.app.provider.jwk(other)["kid"].clone();
            let token = cases.token().by(signer).header("kid", id).encode();
            cases.add(SIGNATURE, format!("by {signer:?} under the id of {other:?}"), token);
        }
    }

    for spelling in ["ed25519", "ED25519", "eddsa", "Ed448", "Ed25519ph"] {
        let token = cases.token().by(Signer::Ed).header("alg", spelling).encode();
        cases.add(SIGNATURE, format!("alg {spelling}"), token);
    }
    let token = cases.token().without_header("kid").encode();
    cases.add(SIGNATURE, "no kid", token);
    for id in
        [json!(""), json!("rsa-99"), json!("../../../../dev/null"), json!("' OR ''='"), json!("\u{0}"), Value::Null]
    {
        let token = cases.token().header("kid", id.clone()).encode();
        cases.add(SIGNATURE, format!("kid {id}"), token);
    }
    for id in [json!(0), json!(["rsa-0"]), json!({"kid": "rsa-0"})] {
        let token = cases.token().header("kid", id.clone()).encode();
        cases.add(INVALID, format!("kid {id}"), token);
    }
    for id in ["enc-0", "enc-by-alg", "enc-by-ops"] {
        let token = cases.token().by(Signer::Encryption).header("kid", id).encode();
        cases.add(SIGNATURE, format!("by a key for encryption, {id}"), token);
    }

    // A key that the token brings along, or says where to get.
    let own = cases.app.provider.jwk(Signer::Rsa)["kid"].clone();
    let jwk = cases.app.provider.jwk(Signer::Stranger);
    let address = "http://127.0.0.1:1/keys";
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!(address)),
        ("x5u", json!(address)),
        ("x5c", json!(["MIIDBTCCAe2gAwIBAgIQ"])),
        ("iss", json!("https://evil.example/")),
    ] {
        for id in [own.clone(), jwk["kid"].clone()] {
            let token = cases.token().by(Signer::Stranger).header("kid", id.clone()).header(name, value.clone());
            cases.add(SIGNATURE, format!("{name} of an attacker's key, kid {id}"), token.encode());
        }
    }
}

fn forms(cases: &mut Cases<'_>) {
    let mut admin = cases.claims();
    admin["role"] = "admin".into();
    admin["tenant_id"] = "on-trial".into();
    let tampered = cases.token().encode_tampered(&admin);
    cases.add(SIGNATURE, "other claims than signed", tampered);
    let swapped = cases.token().encode_with_signature_of(&cases.app.provider.token(&admin));
    cases.add(SIGNATURE, "another token's signature", swapped);

    let token = cases.token().encode();
    let parts: Vec<&str> = token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    // As much as is base64 again.
    cases.add(SIGNATURE, "half of the signature", format!("{header}.{claims}.{}", &signature[..200]));
    cases.add(SIGNATURE, "a signature too long", format!("{token}AAAA"));
    cases.add(SIGNATURE, "no signature but its dot", format!("{header}.{claims}."));
    for (name, text) in [
        ("two parts", format!("{header}.{claims}")),
        ("one part", header.to_owned()),
        ("three empty parts", "..".to_owned()),
        ("four parts", format!("{token}.{signature}")),
        ("a dot too many", format!("{token}.")),
        ("a dot in front", format!(".{token}")),
        ("JWE, which has five parts", format!("{header}.{claims}.{signature}.{claims}.{signature}")),
        ("a word", "token".to_owned()),
        ("padding", format!("{token}==")),
        ("the other alphabet of base64", format!("{header}.{claims}.+/+/")),
        ("two tokens", format!("{token} {token}")),
        ("two tokens with a comma", format!("{token},{token}")),
        ("quotes", format!("\"{token}\"")),
        ("a percent sign", format!("%65{}", &token[1..])),
        ("a JSON serialization", json!({"payload": claims, "signature": signature}).to_string()),
        ("64 KB of nothing", "A".repeat(64 * 1024)),
    ] {
        cases.add(INVALID, name, text);
    }
    // A header that is not text is as good as none.
    cases.add(NO_TOKEN, "bytes beyond ASCII", format!("{token}é"));
    let long = cases.token().header("x", "x".repeat(64 * 1024)).encode();
    cases.add(INVALID, "a header of 64 KB", long);
    // Four bits of the last letter say nothing: with them set, it is a second spelling of the same signature.
    let (rest, last) = token.split_at(token.len() - 1);
    let respelled = char::from(last.as_bytes()[0] + 1);
    cases.add(INVALID, "the signature spelled otherwise", format!("{rest}{respelled}"));

    for (name, text) in [
        ("that is no JSON", "{"),
        ("that is a list", "[]"),
        ("that is a text", "\"RS256\""),
        ("that is empty", ""),
        ("without alg", "{\"kid\":\"rsa-0\"}"),
        ("with alg twice", "{\"alg\":\"RS256\",\"kid\":\"rsa-0\",\"alg\":\"none\"}"),
        ("with kid twice", "{\"alg\":\"RS256\",\"kid\":\"rsa-0\",\"kid\":\"ec-0\"}"),
        ("with crit twice", "{\"alg\":\"RS256\",\"kid\":\"rsa-0\",\"crit\":[\"x\"],\"crit\":[]}"),
        ("with another name twice", "{\"alg\":\"RS256\",\"kid\":\"rsa-0\",\"x\":1,\"x\":1}"),
        ("with a name twice within", "{\"alg\":\"RS256\",\"kid\":\"rsa-0\",\"jwk\":{\"n\":1,\"n\":2}}"),
        ("with more behind it", "{\"alg\":\"RS256\",\"kid\":\"rsa-0\"}{}"),
    ] {
        let token = cases.token().raw_header(text).encode();
        cases.add(INVALID, format!("a header {name}"), token);
    }
    for critical in [json!(["exp"]), json!(["b64"]), json!(["https://example.org/x"]), json!([]), json!("exp")] {
        let token = cases.token().header("crit", critical.clone()).header("b64", true).encode();
        cases.add(INVALID, format!("crit {critical}"), token);
    }
    for kind in ["logout+jwt", "secevent+jwt", "dpop+jwt", "application/logout+jwt", "JOSE", "Refresh", ""] {
        let token = cases.token().header("typ", kind).encode();
        cases.add(INVALID, format!("of type {kind:?}"), token);
    }
}

fn issuers_and_audiences(cases: &mut Cases<'_>) {
    let issuer = cases.app.provider.issuer();
    for changes in [
        json!({"aud": null}),
        json!({"aud": ""}),
        json!({"aud": []}),
        json!({"aud": "another-client"}),
        json!({"aud": ["another-client", "third"]}),
        json!({"aud": CLIENT_ID.to_uppercase()}),
        json!({"aud": format!("{CLIENT_ID}2")}),
        json!({"aud": "bulkhead"}),
        json!({"aud": format!("{CLIENT_ID},other")}),
        json!({"aud": {"0": CLIENT_ID}}),
        json!({"aud": 7}),
        json!({"aud": [CLIENT_ID, 7]}),
        json!({"iss": null}),
        json!({"iss": "https://evil.example/"}),
        json!({"iss": format!("{issuer}/")}),
        json!({"iss": issuer.to_uppercase()}),
        json!({"iss": issuer.replace("127.0.0.1", "localhost")}),
        json!({"iss": format!("{issuer}@evil.example")}),
        json!({"iss": [issuer]}),
        json!({"iss": [issuer, "https://evil.example/"]}),
    ] {
        cases.claim(INVALID, &changes);
    }
}

fn times(cases: &mut Cases<'_>) {
    let now = now();
    for changes in [
        json!({"exp": null}),
        json!({"exp": (now + 300).to_string()}),
        json!({"exp": "never"}),
        json!({"exp": [now + 300]}),
        json!({"exp": true}),
        json!({"iat": -2, "exp": -1}),
        json!({"exp": i64::MAX}),
        json!({"exp": u64::MAX}),
        json!({"exp": 1e300}),
        json!({"nbf": now + 120}),
        json!({"nbf": u64::MAX}),
        json!({"nbf": 1e300}),
        json!({"nbf": (now + 120).to_string()}),
        json!({"iat": null}),
        json!({"iat": now + 120, "exp": now + 600}),
        json!({"iat": now.to_string()}),
        json!({"iat": i64::MIN}),
        json!({"iat": -1e300}),
        json!({"iat": -1}),
        json!({"iat": now - 10, "exp": now - 10}),
        json!({"iat": now + 40, "exp": now + 20}),
        json!({"iat": now - 10, "exp": now + 3600}),
    ] {
        cases.claim(INVALID, &changes);
    }
    for changes in [
        json!({"iat": now - 800, "exp": now - 61}),
        json!({"iat": now - 7200, "exp": now - 7000}),
        json!({"iat": 0, "exp": 1}),
    ] {
        cases.claim(EXPIRED, &changes);
    }
    cases.raw_claim(INVALID, "exp", "1e999");
    cases.raw_claim(INVALID, "exp", "123456789012345678901234567890");
    cases.raw_claim(INVALID, "exp", "NaN");
    cases.raw_claim(INVALID, "exp", "0x7fffffff");
}

fn claims(cases: &mut Cases<'_>) {
    let (now, issuer) = (now(), cases.app.provider.issuer());
    for changes in [
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": ["provider|ada"]}),
        json!({"sub": "provider|ada\u{0}"}),
        json!({"sub": "provider|ada\nprovider|eve"}),
        json!({"sub": "a".repeat(256)}),
        json!({"sub": "provider|\u{202e}ada"}),
        json!({"sub": "provider|\u{2066}ada\u{2069}"}),
        json!({"sub": "provider|a\u{200b}da"}),
        json!({"sub": "\u{feff}provider|ada"}),
        json!({"sub": "provider|a\u{ad}da"}),
        json!({"sub": "provider|ada\u{e0041}"}),
    ] {
        cases.claim(INVALID, &changes);
    }
    cases.raw_claim(INVALID, "sub", "\"line\nbreak\"");
    cases.raw_claim(INVALID, "sub", "\"\\ud800\"");
    cases.raw_claim(INVALID, "x", &format!("{}{}", "[".repeat(2000), "]".repeat(2000)));

    // Whichever of the two a reader takes, the other is there as well.
    for (name, value) in [
        ("exp", json!(now + 300)),
        ("iat", json!(now)),
        ("sub", json!("provider|eve")),
        ("aud", json!(CLIENT_ID)),
        ("iss", json!(issuer)),
        ("tenant_id", json!("on-trial")),
        ("role", json!("admin")),
    ] {
        let token = cases.token().duplicate_claim(name, value).encode();
        cases.add(INVALID, format!("{name} twice"), token);
    }
    for nested in [r#"{"a":1,"a":2}"#, r#"{"b":[{"a":1,"c":{},"a":1}]}"#] {
        cases.raw_claim(INVALID, "x", nested);
    }
    for text in ["", "[]", "null", "\"sub\"", "7", "{", "{}{}"] {
        let token = cases.token().raw_claims(text).encode();
        cases.add(INVALID, format!("claims that are {text:?}"), token);
    }
}

/// Tokens of the provider that are not access tokens.
fn kinds(cases: &mut Cases<'_>) {
    for changes in [
        json!({"token_use": "refresh"}),
        json!({"typ": "Refresh"}),
        json!({"typ": "Offline"}),
        json!({"typ": "Logout"}),
        json!({"token_use": "id"}),
        json!({"token_use": "ID", "typ": "Bearer"}),
        json!({"token_use": "access", "typ": "ID"}),
        json!({"typ": "ID"}),
        json!({"typ": "id"}),
        json!({"typ": "Registration-Access"}),
        json!({"typ": "Initial-Access"}),
        json!({"typ": "verify-email"}),
        json!({"typ": "DPoP"}),
        json!({"typ": ""}),
        json!({"typ": 7}),
        json!({"nonce": "n"}),
        json!({"typ": "JWT", "nonce": "n"}),
        json!({"at_hash": "x"}),
        json!({"c_hash": "x"}),
        json!({"s_hash": "x"}),
        json!({"nonce": "n", "scope": "openid", "client_id": "x"}),
        // ID tokens without a nonce, as for a refresh token.
        json!({"auth_time": now(), "sid": "x", "azp": CLIENT_ID, "name": "Ada"}),
        json!({"auth_time": now()}),
        json!({"acr": "1"}),
        json!({"amr": ["pwd"]}),
        json!({"sid": "x"}),
        json!({"token_use": "id", "client_id": "x"}),
        // Logout tokens, and others that tell of something.
        json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "sid": "x"}),
        json!({"events": {}, "scope": "openid"}),
        json!({"events": "x"}),
        // Bound to a key: DPoP, mutual TLS, others.
        json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
        json!({"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}),
        json!({"cnf": {"jwk": {"kty": "RSA"}}, "scope": "openid"}),
        json!({"cnf": {}}),
        json!({"cnf": "x"}),
    ] {
        cases.claim(INVALID, &changes);
    }
    for changes in [
        json!({"typ": "ID"}),
        json!({"typ": "Refresh"}),
        json!({"typ": "Logout"}),
        json!({"token_use": "id"}),
        json!({"events": {}}),
        json!({"cnf": {"jkt": "x"}}),
    ] {
        let mut claims = cases.claims();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = cases.app.provider.token(&claims).header("typ", "at+jwt").encode();
        cases.add(INVALID, format!("at+jwt with {changes}"), token);
    }
}

fn tenants_and_roles(cases: &mut Cases<'_>) {
    let missing = json!({"tenant_id": null});
    cases.claim(NO_TENANT, &missing);
    cases.raw_claim(NO_TENANT, "tenant_id", "null");
    for name in ["Tenant_Id", "tenant", "tid", "tenantId"] {
        cases.claim(NO_TENANT, &json!({"tenant_id": null, name: "clinic-1"}));
    }
    for value in [
        json!(""),
        json!("ab"),
        json!("a".repeat(129)),
        json!(" clinic-1"),
        json!("clinic-1\n"),
        json!("clinic-1\u{0}"),
        json!("clinic\u{2010}1"),
        json!("clinic-\u{ff11}"),
        json!("clinic-1' OR '1'='1"),
        json!("clinic%"),
        json!("../clinic-1"),
        json!(["clinic-1"]),
        json!([]),
        json!({"id": "clinic-1"}),
        json!(7),
        json!(true),
        json!("system"),
        json!("SYSTEM"),
    ] {
        cases.claim(BAD_TENANT, &json!({"tenant_id": value}));
    }
    // A claim that is there is not passed over for the next.
    cases.claim(BAD_TENANT, &json!({"tenant_id": "", "org_id": "clinic-1"}));
    for value in ["clinic-404", "suspended", "deleted", "CLINIC-1", "clinic_1", "___"] {
        cases.claim(REFUSED, &json!({"tenant_id": value}));
    }
    for value in [
        Value::Null,
        json!(""),
        json!("owner"),
        json!("Admin"),
        json!("admin "),
        json!("admin,member"),
        json!(["owner"]),
        json!([["admin"]]),
        json!([]),
        json!({"admin": true}),
        json!(2),
    ] {
        cases.claim(ROLE, &json!({"role": value}));
    }
}

async fn good_tokens_pass_and_attacks_do_not(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    let server = app.server(&[("LOG_LEVEL", "debug")]).await;
    let mut cases = Cases { app: &app, all: Vec::new() };
    good(&mut cases);
    algorithms_and_keys(&mut cases);
    forms(&mut cases);
    issuers_and_audiences(&mut cases);
    times(&mut cases);
    claims(&mut cases);
    kinds(&mut cases);
    tenants_and_roles(&mut cases);
    // Last, that it may be seen whether anything before has left a mark.
    good(&mut cases);

    let mut wrong = Vec::new();
    for Case { name, token, expected } in &cases.all {
        let answer = app.validate(&server, token).await;
        if answer.outcome() != *expected {
            wrong.push(format!("{name}: {:?}, not {expected:?}: {}", answer.outcome(), answer.body));
        }
        if answer.status == 401 && !answer.header("www-authenticate").starts_with("Bearer") {
            wrong.push(format!("{name}: WWW-Authenticate is {:?}", answer.header("www-authenticate")));
        }
        if answer.status == 200 && answer.body["valid"] != true {
            wrong.push(format!("{name}: {}", answer.body));
        }
        if answer.body.to_string().contains(token.as_str()) && token.len() > 20 {
            wrong.push(format!("{name}: the answer repeats the token"));
        }
    }
    assert_log_without(&server, cases.all.iter().map(|case| case.token.as_str()));
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.all.len(), wrong.join("\n"));
}
