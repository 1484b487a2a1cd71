//! Tokens that must not pass, one by one, each with what it must be answered; and the few that must.

use crate::bulkhead;
use crate::identity::{World, assert_log_without};
use bulkhead::entity::user;
use sea_orm::ActiveModelTrait;
use sea_orm::ActiveValue::Set;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use test_support::provider::{CLIENT_ID, Endpoint, Fault, PublicKeyForm, Shape, Signature, Signer, Token, now};
use test_support::{Database, Provider, Server, eventually, on_both_databases};
use uuid::Uuid;

on_both_databases!(good_tokens_pass_and_attacks_do_not);

const INVALID: Outcome = (401, "AUTH_001");
const EXPIRED: Outcome = (401, "AUTH_003");
const SIGNATURE: Outcome = (401, "AUTH_004");
const NO_TENANT: Outcome = (403, "AUTH_005");
const BAD_TENANT: Outcome = (403, "AUTH_007");
const ROLE: Outcome = (403, "AUTH_008");
const REFUSED: Outcome = (403, "AUTH_009");
const NO_TOKEN: Outcome = (401, "AUTH_010");
const GOOD: Outcome = (200, "-");

type Outcome = (u16, &'static str);

const SHAPES: [Shape; 7] =
    [Shape::Plain, Shape::Cognito, Shape::Auth0, Shape::Entra, Shape::Okta, Shape::OktaIdToken, Shape::Keycloak];

/// What a request is for, its query, its headers, and what must come of it.
type Sent<'s> = (&'s str, &'s str, &'s [(&'s str, &'s str)], Outcome);

/// What a token is for, itself, and what must come of it.
struct Case {
    name: String,
    token: String,
    expected: Outcome,
}

/// Tokens in the making, all by one provider for one person.
struct Cases<'w> {
    world: &'w World,
    all: Vec<Case>,
}

impl Cases<'_> {
    /// The claims that are good.
    fn claims(&self) -> Value {
        self.world.provider.claims(&self.world.ada())
    }

    fn token(&self) -> Token {
        self.world.provider.token(&self.claims())
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
        let token = self.world.provider.token(&claims).encode();
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
        json!({"tenant_id": "on-trial"}),
        json!({"tenant_id": null, "organization_id": "clinic-1"}),
        json!({"tenant_id": null, "org_id": "clinic-1"}),
        json!({"tenant_id": null, "custom:tenant_id": "clinic-1"}),
    ] {
        cases.claim(GOOD, &changes);
    }
    cases.raw_claim(GOOD, "exp", &format!("{}.5", now + 300));
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
            let id = cases.world.provider.jwk(other)["kid"].clone();
            let token = cases.token().by(signer).header("kid", id).encode();
            cases.add(SIGNATURE, format!("by {signer:?} under the id of {other:?}"), token);
        }
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
    let own = cases.world.provider.jwk(Signer::Rsa)["kid"].clone();
    let jwk = cases.world.provider.jwk(Signer::Stranger);
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
    let swapped = cases.token().encode_with_signature_of(&cases.world.provider.token(&admin));
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

fn claims(cases: &mut Cases<'_>) {
    let now = now();
    let issuer = cases.world.provider.issuer();
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
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": ["provider|ada"]}),
        json!({"sub": "provider|ada\u{0}"}),
        json!({"sub": "provider|ada\nprovider|eve"}),
        json!({"sub": "a".repeat(256)}),
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
    ] {
        cases.claim(INVALID, &changes);
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
    let world = World::new(Shape::Plain, database).await;
    let server = world.server(&[("LOG_LEVEL", "debug")]).await;
    let mut cases = Cases { world: &world, all: Vec::new() };
    good(&mut cases);
    algorithms_and_keys(&mut cases);
    forms(&mut cases);
    claims(&mut cases);
    kinds(&mut cases);
    tenants_and_roles(&mut cases);
    // Last, that it may be seen whether anything before has left a mark.
    good(&mut cases);

    let mut wrong = Vec::new();
    for Case { name, token, expected } in &cases.all {
        let answer = world.validate(&server, token).await;
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

#[tokio::test]
async fn a_token_counts_in_one_authorization_header_and_nowhere_else() {
    let world = World::on_sqlite(Shape::Plain).await;
    let server = world.server(&[]).await;
    let token = world.good();
    let (bearer, cookie) = (format!("Bearer {token}"), format!("access_token={token}"));
    let query = format!("?access_token={token}&token={token}");
    let scheme = |scheme: &str| format!("{scheme}{token}");
    let [lower, upper, basic, other, none, colon, tab, spaces] =
        ["bearer ", "BEARER ", "Basic ", "Token ", "", "Bearer:", "Bearer\t", "Bearer   "].map(scheme);
    let cases: [Sent<'_>; 17] = [
        ("as it should be", "", &[("authorization", &bearer)], GOOD),
        ("bearer", "", &[("authorization", &lower)], GOOD),
        ("BEARER", "", &[("authorization", &upper)], GOOD),
        ("several spaces", "", &[("authorization", &spaces)], GOOD),
        ("no header", "", &[], NO_TOKEN),
        ("Basic", "", &[("authorization", &basic)], NO_TOKEN),
        ("another scheme", "", &[("authorization", &other)], NO_TOKEN),
        ("no scheme", "", &[("authorization", &none)], NO_TOKEN),
        ("a colon", "", &[("authorization", &colon)], NO_TOKEN),
        ("a tab", "", &[("authorization", &tab)], NO_TOKEN),
        ("no token", "", &[("authorization", "Bearer")], NO_TOKEN),
        ("an empty header", "", &[("authorization", "")], NO_TOKEN),
        ("two headers", "", &[("authorization", &bearer), ("authorization", &bearer)], INVALID),
        ("two schemes", "", &[("authorization", "Basic eDp5"), ("authorization", &bearer)], INVALID),
        ("the query", &query, &[], NO_TOKEN),
        ("a cookie", "", &[("cookie", &cookie)], NO_TOKEN),
        ("other headers", "", &[("x-access-token", &token), ("proxy-authorization", &bearer)], NO_TOKEN),
    ];
    for (name, query, headers, expected) in cases {
        let answer = world.call(&server, query, headers).await;
        assert_eq!(answer.outcome(), expected, "{name}");
        assert_eq!(answer.header("www-authenticate").starts_with("Bearer"), expected.0 == 401, "{name}");
    }
    assert_log_without(&server, [token.as_str()]);
}

#[tokio::test]
async fn bytes_that_no_header_may_hold_are_a_bad_request() {
    let world = World::on_sqlite(Shape::Plain).await;
    let server = world.server(&[]).await;
    let token = world.good();
    for byte in [0_u8, 1, 8, 11, 127] {
        let mut request = b"GET /api/v1/auth/validate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".to_vec();
        request.extend_from_slice(format!("Authorization: Bearer {token}").as_bytes());
        request.extend_from_slice(&[byte]);
        request.extend_from_slice(b"\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{byte}: {answer}");
    }
    assert_log_without(&server, [token.as_str()]);
}

#[tokio::test]
async fn a_tenant_is_named_by_the_token_alone() {
    let world = World::on_sqlite(Shape::Plain).await;
    let server = world.server(&[]).await;
    let mut claims = world.provider.claims(&world.ada());
    claims.as_object_mut().unwrap().remove("tenant_id");
    let (with, without) = (world.good(), world.provider.token(&claims).encode());
    for (query, header) in [
        ("", "x-tenant-id"),
        ("", "x-tenant"),
        ("", "x-organization-id"),
        ("?tenant_id=on-trial", "x-nothing"),
        ("?tenant=on-trial", "x-nothing"),
    ] {
        let headers = |token: &str| format!("Bearer {token}");
        let answer = world.call(&server, query, &[("authorization", &headers(&with)), (header, "on-trial")]).await;
        assert_eq!((answer.status, &answer.body["tenant_id"]), (200, &world.tenant.to_string().into()), "{header}");
        let answer = world.call(&server, query, &[("authorization", &headers(&without)), (header, "clinic-1")]).await;
        assert_eq!(answer.outcome(), NO_TENANT, "{header} {query}");
    }
}

#[tokio::test]
async fn where_a_claim_is_named_no_other_names_the_tenant() {
    let world = World::on_sqlite(Shape::Plain).await;
    let ours = world.ada().tenant;
    let claims = |changes: &Value| {
        let mut claims = world.provider.claims(&world.ada());
        claims.as_object_mut().unwrap().remove("tenant_id");
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    let token = |changes: &Value| world.provider.token(&claims(changes)).encode();
    let nested = world.server(&[("JWT_TENANT_CLAIM_NAME", "org.tenant")]).await;
    let plain = world.server(&[("JWT_TENANT_CLAIM_NAME", "tenant_id")]).await;
    for other in ["tenant_id", "organization_id", "org_id", "custom:tenant_id", "x"] {
        for (org, expected) in [
            (json!({"org": {"tenant": ours}}), GOOD),
            (json!({"org.tenant": ours}), GOOD),
            (json!({"org.tenant": ours, "org": {"tenant": "on-trial"}}), GOOD),
            (json!({}), NO_TENANT),
            (json!({"org": {"tenant": null}}), NO_TENANT),
            (json!({"org": {}}), NO_TENANT),
            (json!({"org": null}), NO_TENANT),
            (json!({"org": ours}), NO_TENANT),
            (json!({"org": [{"tenant": ours}]}), NO_TENANT),
            (json!({"org.tenant": null, "org": {"tenant": ours}}), NO_TENANT),
            (json!({"org": {"tenant": ""}}), BAD_TENANT),
            (json!({"org": {"tenant": [ours]}}), BAD_TENANT),
        ] {
            let mut changes = org.clone();
            changes[other] = "on-trial".into();
            let answer = world.validate(&nested, &token(&changes)).await;
            assert_eq!(answer.outcome(), expected, "{changes}");
            if expected == GOOD {
                assert_eq!(answer.body["tenant_id"], world.tenant.to_string(), "{changes}");
            }
        }
        for changes in [json!({other: "on-trial"}), json!({"tenant_id": null, other: "on-trial"})] {
            let expected = if other == "tenant_id" { GOOD } else { NO_TENANT };
            assert_eq!(world.validate(&plain, &token(&changes)).await.outcome(), expected, "{changes}");
        }
    }
    // Whichever of the two a reader takes, the other is there as well.
    let twice = format!(r#"{{"tenant":"on-trial","tenant":"{ours}"}}"#);
    let claims = claims(&json!({"org": "TWICE"}));
    let text = claims.to_string().replace("\"TWICE\"", &twice);
    let answer = world.validate(&nested, &world.provider.token(&claims).raw_claims(text).encode()).await;
    assert_eq!(answer.outcome(), INVALID);
}

#[tokio::test]
async fn a_token_that_was_good_is_refused_once_it_has_expired() {
    let world = World::on_sqlite(Shape::Plain).await;
    let server = world.server(&[]).await;
    let mut claims = world.provider.claims(&world.ada());
    // Two seconds of the leeway for clocks are left.
    claims["iat"] = (now() - 300).into();
    claims["exp"] = (now() - 58).into();
    let token = world.provider.token(&claims).encode();
    assert_eq!(world.validate(&server, &token).await.outcome(), GOOD);
    eventually("it has expired", async || {
        let answer = world.validate(&server, &token).await;
        (answer.outcome() == EXPIRED).then_some(())
    })
    .await;
    assert!(now() > claims["exp"].as_i64().unwrap() + 60, "not before its time");
}

#[tokio::test]
async fn the_providers_other_tokens_are_not_for_the_api() {
    // Of the access token and the ID token one is the API's, by the settings that the documentation names.
    for shape in SHAPES {
        let world = World::on_sqlite(shape).await;
        let server = world.server(&[]).await;
        let (access, id) = (world.provider.claims(&world.ada()), world.provider.id_claims(&world.ada(), "n"));
        let by_id_token = matches!(shape, Shape::Cognito | Shape::OktaIdToken);
        let (own, other) = if by_id_token { (id, access) } else { (access, id) };
        let token = |claims: &Value| world.provider.token(claims).encode();
        assert_eq!(world.validate(&server, &token(&own)).await.outcome(), GOOD, "{shape:?}");
        assert_eq!(world.validate(&server, &token(&other)).await.outcome(), INVALID, "{shape:?}");

        let by_id_token = world.server(&[("OIDC_API_TOKEN", "id_token"), ("OIDC_AUDIENCE", CLIENT_ID)]).await;
        let id = token(&world.provider.id_claims(&world.ada(), "n"));
        assert_eq!(world.validate(&by_id_token, &id).await.outcome(), GOOD, "{shape:?} by ID token");
        let refresh = json!({"token_use": "refresh", "typ": "Refresh"});
        for (name, value) in refresh.as_object().unwrap() {
            let mut claims = world.provider.id_claims(&world.ada(), "n");
            claims[name] = value.clone();
            assert_eq!(world.validate(&by_id_token, &token(&claims)).await.outcome(), INVALID, "{shape:?} {name}");
        }
    }
}

#[test]
fn the_shapes_have_the_settings_that_the_documentation_names() {
    let documentation = include_str!("../../docs/auth.md").replace("CLIENT-ID", CLIENT_ID);
    for shape in SHAPES {
        for (name, value) in shape.settings() {
            assert!(documentation.contains(&format!("{name}={value}")), "{shape:?}: {name}={value}");
        }
    }
}

#[tokio::test]
async fn a_role_claim_that_names_no_role_of_ours_gives_none_whatever_the_users_row_says() {
    let world = World::on_sqlite(Shape::Plain).await;
    let server = world.server(&[]).await;
    let connection = world.database.connect().await;
    let user = user::ActiveModel {
        id: Set(Uuid::now_v7()),
        tenant_id: Set(world.tenant),
        email: Set(world.ada().email),
        external_idp_id: Set(Some(world.ada().subject)),
        role: Set(user::Role::Admin),
        ..Default::default()
    };
    user.insert(&connection).await.unwrap();
    connection.close().await.unwrap();
    for (role, expected) in [
        (Value::Null, GOOD),
        (json!("viewer"), GOOD),
        (json!(["owner", "viewer"]), GOOD),
        (json!("owner"), ROLE),
        (json!(""), ROLE),
        (json!([]), ROLE),
        (json!(["Everyone", "offline_access"]), ROLE),
        (json!({}), ROLE),
        (json!(false), ROLE),
    ] {
        let mut claims = world.provider.claims(&world.ada());
        claims["role"] = role.clone();
        let answer = world.validate(&server, &world.provider.token(&claims).encode()).await;
        assert_eq!(answer.outcome(), expected, "{role}");
    }
    let mut claims = world.provider.claims(&world.ada());
    claims.as_object_mut().unwrap().remove("role");
    assert_eq!(world.validate(&server, &world.provider.token(&claims).encode()).await.outcome(), GOOD, "no claim");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_the_provider_one_request_and_good_tokens_nothing() {
    const FLOOD: usize = 400;
    let world = World::on_sqlite(Shape::Plain).await;
    // They come from many clients, which have one address here.
    let server = world.server(&[("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "512")]).await;
    let before = world.provider.seen(Endpoint::Keys);
    let claims = world.provider.claims(&world.ada());
    // The one request hangs, so that nothing is over before the flood is there.
    world.provider.fail(Fault::Slow);
    let flood: Vec<String> =
        (0..FLOOD).map(|n| world.provider.token(&claims).header("kid", format!("unknown-{n}")).encode()).collect();
    let attacks = flood.iter().map(|token| async { world.validate(&server, token).await.status });
    let meanwhile = async {
        eventually("the provider is asked", async || (world.provider.seen(Endpoint::Keys) > before).then_some(()))
            .await;
        let started = Instant::now();
        for signer in Signer::GOOD {
            let fresh = world.provider.token(&claims).by(signer).encode();
            assert_eq!(world.validate(&server, &fresh).await.outcome(), GOOD);
        }
        let took = started.elapsed();
        world.provider.heal();
        took
    };
    let (answers, took) = futures_util::future::join(futures_util::future::join_all(attacks), meanwhile).await;
    // The provider answered nothing until then: each would have waited for some seconds.
    assert!(took < Duration::from_secs(10), "good tokens had to wait for {took:?}");
    assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
    assert_eq!(world.provider.seen(Endpoint::Keys), before + 1);

    // Later ones are no reason to ask again, whatever they are called.
    for n in 0..20 {
        let token = world.provider.token(&claims).header("kid", format!("later-{n}")).encode();
        assert_eq!(world.validate(&server, &token).await.outcome(), SIGNATURE);
    }
    assert_eq!(world.provider.seen(Endpoint::Keys), before + 1);
    assert_log_without(&server, flood.iter().map(String::as_str));
}

#[tokio::test]
async fn a_rotated_key_is_known_at_its_first_use_and_the_old_one_is_gone() {
    let world = World::on_sqlite(Shape::Plain).await;
    let server = world.server(&[]).await;
    let old = world.good();
    assert_eq!(world.validate(&server, &old).await.outcome(), GOOD);
    world.provider.rotate();
    assert_eq!(world.validate(&server, &old).await.outcome(), GOOD, "nobody has heard of the rotation yet");
    assert_eq!(world.validate(&server, &world.good()).await.outcome(), GOOD);
    assert_eq!(world.validate(&server, &old).await.outcome(), SIGNATURE, "though it was good before");
    // Half a minute has not gone by.
    world.provider.rotate();
    assert_eq!(world.validate(&server, &world.good()).await.outcome(), SIGNATURE);
}

#[tokio::test]
async fn known_keys_go_on_when_the_provider_goes() {
    let world = World::on_sqlite(Shape::Plain).await;
    // The shortest time that keys may be kept, so that the server soon sees that nobody is there.
    let server = world.server(&[("JWKS_CACHE_TTL_SECONDS", "10")]).await;
    world.provider.close();
    let good = || Signer::GOOD.map(|signer| world.provider.token(&world.provider.claims(&world.ada())).by(signer));
    let pass = async |when: &str| {
        for token in good() {
            assert_eq!(world.validate(&server, &token.encode()).await.outcome(), GOOD, "{when}");
        }
    };
    pass("at once").await;
    let unknown = good()[0].clone().header("kid", "unknown").encode();
    assert_eq!(world.validate(&server, &unknown).await.outcome(), SIGNATURE, "which is no reason for a 503");
    eventually("the server sees it", async || {
        let (status, health) = server.get_json("/api/v1/health/ready").await;
        assert_eq!(status, 200, "{health}");
        (health["checks"]["auth"]["status"] == "stale").then_some(())
    })
    .await;
    pass("with keys gone stale").await;
    world.provider.open();
    eventually("the server sees that it is back", async || {
        let (_, health) = server.get_json("/api/v1/health/ready").await;
        (health["checks"]["auth"]["status"] == "ok").then_some(())
    })
    .await;
    pass("afterwards").await;
}

#[tokio::test]
async fn without_keys_from_the_start_nobody_passes_until_the_provider_is_there() {
    let refused = without_keys(Provider::close, Provider::open);
    let faults = [Fault::Unavailable, Fault::GarbageKeys, Fault::NoKeys, Fault::OtherIssuer];
    let failing = faults.map(|fault| without_keys(move |provider| provider.fail(fault), Provider::heal));
    futures_util::future::join(refused, futures_util::future::join_all(failing)).await;
}

/// A server that starts while the provider is in a bad state, from `spoil` to `mend`.
async fn without_keys(spoil: impl FnOnce(&Provider), mend: impl FnOnce(&Provider)) {
    let world = World::on_sqlite(Shape::Plain).await;
    spoil(&world.provider);
    let environment = world.environment(&[]);
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::listening(bulkhead(), &[], &world.database, &environment).await;
    let health = eventually("all else is ready", async || {
        let (status, health) = server.get_json("/api/v1/health/ready").await;
        assert_eq!(status, 503, "{health}");
        let ok = |check: &str| health["checks"][check]["status"] == "ok";
        (ok("process") && ok("schema")).then_some(health)
    })
    .await;
    assert_eq!(health["checks"]["auth"]["error"], "SYS_004", "{health}");
    let token = world.good();
    let answer = world.validate(&server, &token).await;
    assert_eq!(answer.outcome(), (503, "SYS_004"), "{}", answer.body);
    assert_eq!(server.get_json("/api/v1/health/live").await.0, 200);

    mend(&world.provider);
    server.wait_until_ready().await;
    assert_eq!(world.validate(&server, &token).await.outcome(), GOOD);
    assert_log_without(&server, [token.as_str()]);
}
