//! The login and the logout: with each provider's shape, in a real browser, and all that must not lead to a token.

use crate::support::{Answer, Serves, TestApp, assert_log_without};
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE, USER_AGENT};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use test_support::provider::{CLIENT_ID, CLIENT_SECRET, Endpoint, Fault, REDIRECT_URL, Shape, now};
use url::Url;

const SHAPES: [Shape; 7] =
    [Shape::Plain, Shape::Cognito, Shape::Auth0, Shape::Entra, Shape::Okta, Shape::OktaIdToken, Shape::Keycloak];

/// A login that the server has begun.
pub(crate) struct Begun {
    /// Where it sends the browser.
    location: String,
    /// The cookie as a browser would send it back.
    pub(crate) cookie: String,
    set_cookie: String,
    /// The names of the cookies that it removes.
    removed: Vec<String>,
}

impl Begun {
    pub(crate) fn parameters(&self) -> HashMap<String, String> {
        Url::parse(&self.location).unwrap().query_pairs().into_owned().collect()
    }
}

pub(crate) async fn begin(app: &TestApp, server: &impl Serves) -> Begun {
    begin_with(app, server, &[]).await
}

/// The beginning of a login in a browser that has these cookies.
async fn begin_with(app: &TestApp, server: &impl Serves, cookies: &[&str]) -> Begun {
    let request = app.http.get(format!("{}/api/v1/auth/login", server.base())).header(COOKIE, cookies.join("; "));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 302, "{:?}", answer.text().await);
    let location = answer.headers()[LOCATION].to_str().unwrap().to_owned();
    let mut set: Vec<String> =
        answer.headers().get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    let set_cookie = set.remove(0);
    let cookie = set_cookie.split(';').next().unwrap().to_owned();
    let removed = set.into_iter().map(|removal| {
        let (name, rest) = removal.split_once('=').unwrap();
        assert!(rest.starts_with(';') && rest.contains("Max-Age=0") && rest.contains("Path=/"), "{removal}");
        name.to_owned()
    });
    Begun { location, cookie, removed: removed.collect(), set_cookie }
}

/// A login to which the person has agreed, and what the front end then posts.
pub(crate) async fn agreed(app: &TestApp, server: &impl Serves) -> (Begun, Value) {
    let begun = begin(app, server).await;
    let body = agree(app, &begun).await;
    (begun, body)
}

async fn agree(app: &TestApp, begun: &Begun) -> Value {
    let consent = app.provider.consent(&begun.location).await;
    json!({"code": consent.code, "state": consent.state})
}

/// What a browser is answered, whose name holds an address.
pub(crate) async fn callback(app: &TestApp, server: &impl Serves, cookie: Option<&str>, body: &Value) -> Answer {
    let mut request = app.http.post(format!("{}/api/v1/auth/callback", server.base())).json(body);
    request = request.header(USER_AGENT, "browser/1.0 ada@example.org");
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, cookie);
    }
    Answer::read(request.send().await.unwrap()).await
}

async fn logout(app: &TestApp, server: &impl Serves, body: &Value) -> Answer {
    let url = format!("{}/api/v1/auth/logout", server.base());
    Answer::read(app.http.post(url).json(body).send().await.unwrap()).await
}

/// The whole way; the token.
pub(crate) async fn log_in(app: &TestApp, server: &impl Serves) -> String {
    let (begun, body) = agreed(app, server).await;
    let answer = callback(app, server, Some(&begun.cookie), &body).await;
    assert_eq!(answer.status, 200, "{:?}: {}", app.shape, answer.body);
    answer.body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn login_works_with_every_provider() {
    for shape in SHAPES {
        let app = TestApp::on_sqlite(shape).await;
        let server = app.server(&[("LOG_LEVEL", "debug")]).await;
        let (begun, body) = agreed(&app, &server).await;
        let answer = callback(&app, &server, Some(&begun.cookie), &body).await;
        assert_eq!((answer.status, &answer.body["token_type"]), (200, &"Bearer".into()), "{shape:?}: {}", answer.body);
        assert_eq!(answer.header("cache-control"), "no-store");
        let removal = answer.header("set-cookie");
        assert!(removal.contains("Max-Age=0") && removal.contains("Path=/"), "{removal}");
        let expires_in = answer.body["expires_in"].as_i64().unwrap();
        assert!((1..=90 * 60).contains(&expires_in), "{expires_in}");
        let by_id_token = matches!(shape, Shape::Cognito | Shape::OktaIdToken);
        let members: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
        let expected = ["access_token", "expires_in", "id_token", "token_type"];
        let expected: Vec<&str> = expected.into_iter().filter(|name| *name != "id_token" || !by_id_token).collect();
        assert_eq!(members, expected, "{shape:?}: above all no refresh token");

        let token = answer.body["access_token"].as_str().unwrap();
        if let Some(id_token) = answer.body["id_token"].as_str() {
            assert_eq!(app.validate(&server, id_token).await.outcome(), (401, "AUTH_001"), "{shape:?}");
        }
        let valid = app.validate(&server, token).await;
        assert_eq!((valid.status, &valid.body["valid"]), (200, &true.into()), "{shape:?}: {}", valid.body);
        assert_eq!(valid.body["tenant_id"], app.tenant.to_string(), "{shape:?}");
        let mut secrets: Vec<String> = begun.parameters().into_values().filter(|value| value.len() >= 22).collect();
        secrets.retain(|value| !value.contains("://") && !value.contains(' '));
        assert!(secrets.len() >= 3, "state, nonce and challenge");
        let code = body["code"].as_str().unwrap();
        let cookie = begun.cookie.split_once('=').unwrap().1;
        secrets.extend([code, cookie, token, CLIENT_SECRET].map(str::to_owned));
        assert_log_without(&server, secrets.iter().map(String::as_str));
    }
}

#[tokio::test]
async fn each_login_has_its_own_state_and_nonce() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let (one, two) = (begin(&app, &server).await, begin(&app, &server).await);
    assert!(one.location.starts_with(&format!("{}/authorize?", app.provider.issuer())), "{}", one.location);
    let (first, second) = (one.parameters(), two.parameters());
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT_URL),
        ("scope", "openid profile email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(first[name], expected);
    }
    for name in ["state", "nonce", "code_challenge"] {
        // 128 bits in base64.
        assert!(first[name].len() >= 22 && first[name] != second[name], "{name}");
    }
    assert!(!one.location.contains("client_secret") && !one.location.contains("code_verifier"));
    let attributes: Vec<&str> = one.set_cookie.split("; ").skip(1).collect();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"] {
        assert!(attributes.contains(&attribute), "{attribute} is missing: {}", one.set_cookie);
    }
    assert!(!attributes.iter().any(|attribute| attribute.starts_with("Domain")), "{}", one.set_cookie);
}

#[tokio::test]
async fn logins_in_several_tabs_all_end() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let mut tabs: Vec<Begun> = Vec::new();
    for _ in 0..4 {
        let cookies: Vec<&str> = tabs.iter().map(|tab| tab.cookie.as_str()).collect();
        let begun = begin_with(&app, &server, &cookies).await;
        assert!(begun.removed.is_empty(), "{:?}", begun.removed);
        tabs.push(begun);
        // The oldest is known by the second in which it began.
        tokio::time::sleep(Duration::from_millis(1001)).await;
    }
    let cookies: Vec<String> = tabs.iter().map(|tab| tab.cookie.clone()).collect();
    let names: Vec<&str> = cookies.iter().map(|cookie| cookie.split_once('=').unwrap().0).collect();
    assert!(names.iter().all(|name| name.starts_with("bulkhead_login_")), "{names:?}");

    // A fifth one ends the oldest, and clears what is none, whatever order they come in.
    let good: Vec<&str> = cookies.iter().map(String::as_str).rev().collect();
    let fifth = begin_with(&app, &server, &good).await;
    assert_eq!(fifth.removed, names[..1]);
    let junk = ["bulkhead_login_ABCDEFGH=x", "session=1", "bulkhead_login_=x", "bulkhead_login_ABCDEF!H=x", "x"];
    let misnamed = format!("bulkhead_login_ABCDEFGI={}", cookies[3].split_once('=').unwrap().1);
    let fifth = begin_with(&app, &server, &[&junk[..], &good[..3], &[&misnamed]].concat()).await;
    assert_eq!(fifth.removed, ["bulkhead_login_ABCDEFGH", "bulkhead_login_ABCDEFGI"]);
    // However many there are, so many are looked at.
    let many: Vec<String> = (0..400).map(|number| format!("bulkhead_login_{number:08}=x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let begun = begin_with(&app, &server, &many).await;
    assert_eq!(begun.removed.len(), 13);
    let (body, last) = (agree(&app, &begun).await, [&many[..], &[&begun.cookie]].concat().join("; "));
    assert_eq!(callback(&app, &server, Some(&last), &body).await.status, 200);

    // The browser sends all it has, and each tab ends with its own, in any order.
    let all = cookies.join("; ");
    for tab in [2, 0, 3, 1] {
        let body = agree(&app, &tabs[tab]).await;
        let answer = callback(&app, &server, Some(&all), &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let removal = answer.header("set-cookie");
        assert!(removal.starts_with(&format!("{}=;", names[tab])) && removal.contains("Max-Age=0"), "{removal}");
    }
    let other = begin(&app, &server).await;
    let body = agree(&app, &other).await;
    callback(&app, &server, Some(&all), &body).await.assert_error(403, "AUTH_002");
    let renamed = format!("{}={}", names[0], other.cookie.split_once('=').unwrap().1);
    callback(&app, &server, Some(&renamed), &body).await.assert_error(403, "AUTH_002");
}

#[tokio::test]
async fn asking_for_the_head_of_a_login_begins_none() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let answer = app.http.head(format!("{}/api/v1/auth/login", server.base())).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    assert!(answer.headers().contains_key(LOCATION) && !answer.headers().contains_key(SET_COOKIE), "{answer:?}");
}

#[tokio::test]
async fn foreign_login_answer_is_refused() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let (own, body) = agreed(&app, &server).await;
    // An attacker's login, into which a victim is to be drawn.
    let (other, other_body) = agreed(&app, &server).await;
    let with_state = |state: &str| json!({"code": body["code"], "state": state});
    let (name, value) = own.cookie.split_once('=').unwrap();
    let mut cases = vec![
        ("no cookie".to_owned(), None, body.clone()),
        ("another login's cookie".to_owned(), Some(other.cookie.clone()), body.clone()),
        ("another login's answer".to_owned(), Some(own.cookie.clone()), other_body.clone()),
        ("no state".to_owned(), Some(own.cookie.clone()), with_state("")),
        ("a guessed state".to_owned(), Some(own.cookie.clone()), with_state("guess")),
        ("another cookie".to_owned(), Some(format!("session={value}")), body.clone()),
        ("an empty cookie".to_owned(), Some(format!("{name}=")), body.clone()),
        ("an unsigned cookie".to_owned(), Some(format!("{name}=guess.guess.guess.99999999999")), with_state("guess")),
    ];
    // One letter changed, anywhere.
    for at in (0..value.len()).step_by(7) {
        let mut bytes = value.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        cases.push((format!("letter {at} changed"), Some(format!("{name}={changed}")), body.clone()));
    }
    for (what, cookie, body) in &cases {
        let answer = callback(&app, &server, cookie.as_deref(), body).await;
        assert_eq!(answer.outcome(), (403, "AUTH_002"), "{what}");
    }
    assert_eq!(app.provider.seen(Endpoint::Token), 0, "the provider is not asked for what cannot be right");
    // Nothing of this has spoilt the login.
    assert_eq!(callback(&app, &server, Some(&own.cookie), &body).await.status, 200);

    // A cookie that another deployment has signed.
    let elsewhere = app.serve(&[("COOKIE_SECRET", "another secret that is long enough for this purpose")]).await;
    let answer = callback(&app, &elsewhere, Some(&other.cookie), &other_body).await;
    answer.assert_error(403, "AUTH_002");
    // And one that another instance of the same has.
    let replica = app.serve(&[]).await;
    assert_eq!(callback(&app, &replica, Some(&other.cookie), &other_body).await.status, 200);
}

#[tokio::test]
async fn code_is_good_once() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let (begun, body) = agreed(&app, &server).await;
    assert_eq!(callback(&app, &server, Some(&begun.cookie), &body).await.status, 200);
    let replayed = callback(&app, &server, Some(&begun.cookie), &body).await;
    replayed.assert_error(400, "AUTH_001");

    let (begun, body) = agreed(&app, &server).await;
    for code in ["guess", "", "a b&c=d\u{0}"] {
        let guessed = json!({"code": code, "state": body["state"]});
        let answer = callback(&app, &server, Some(&begun.cookie), &guessed).await;
        assert_eq!(answer.outcome(), (400, "AUTH_001"), "{code:?}");
        assert_eq!(answer.header("www-authenticate"), "", "no token was refused");
    }
    // The code of one login under the state and verifier of another: what PKCE is for.
    let stolen = begin(&app, &server).await;
    let injected = json!({"code": body["code"], "state": stolen.parameters()["state"]});
    let answer = callback(&app, &server, Some(&stolen.cookie), &injected).await;
    answer.assert_error(400, "AUTH_001");
}

#[tokio::test]
async fn a_provider_that_answers_wrongly_gives_no_login() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.server(&[]).await;
    for (fault, expected) in [
        (Fault::WrongNonce, (400, "AUTH_001")),
        (Fault::NoNonce, (400, "AUTH_001")),
        (Fault::WrongAudience, (400, "AUTH_001")),
        (Fault::WrongParty, (400, "AUTH_001")),
        (Fault::ExpiredIdToken, (400, "AUTH_001")),
        (Fault::TypedIdToken, (400, "AUTH_001")),
        (Fault::ForgedIdToken, (400, "AUTH_004")),
        // Our own mistake, and not the caller's.
        (Fault::ClientRejected, (500, "SYS_003")),
        (Fault::BoundTokens, (503, "SYS_004")),
        (Fault::GarbageTokens, (503, "SYS_004")),
        (Fault::Unavailable, (503, "SYS_004")),
    ] {
        let (begun, body) = agreed(&app, &server).await;
        app.provider.fail(fault);
        let answer = callback(&app, &server, Some(&begun.cookie), &body).await;
        assert_eq!(answer.outcome(), expected, "{fault:?}: {}", answer.body);
        let text = answer.body.to_string();
        assert!(!text.contains(CLIENT_SECRET) && !text.contains("eyJ"), "{text}");
        app.provider.heal();
    }
    let (begun, body) = agreed(&app, &server).await;
    app.provider.close();
    let answer = callback(&app, &server, Some(&begun.cookie), &body).await;
    answer.assert_error(503, "SYS_004");
    app.provider.open();
    // The code is as good as it was.
    assert_eq!(callback(&app, &server, Some(&begun.cookie), &body).await.status, 200);
    assert_log_without(&server, [CLIENT_SECRET, body["code"].as_str().unwrap(), body["state"].as_str().unwrap()]);
}

#[tokio::test]
async fn the_two_tokens_of_a_login_are_compared() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[("OIDC_AUDIENCE", "bulkhead-web,https://api.example.com")]).await;
    // Of the access token in the example of OpenID Connect Core 1.0, appendix A.3.
    let other_hash = "77QmUPtjPfzWtF2AnpK9RQ";
    let hours = |hours: i64| json!({"iat": now(), "exp": now() + hours * 3600});
    let (good, bad) = ((200, "-"), (400, "AUTH_001"));
    let mut wrong = Vec::new();
    for (id, access, expected) in [
        (json!({}), json!({"sub": "provider|eve"}), bad),
        (json!({"sub": "provider|eve"}), json!({}), bad),
        (json!({"oid": "1"}), json!({"sub": "provider|eve", "oid": "2"}), bad),
        // As with Okta, and with Entra where the API is another application.
        (json!({"sub": "00u1"}), json!({"sub": "ada@example.org", "uid": "00u1"}), good),
        (json!({"oid": "1"}), json!({"sub": "of-this-application", "oid": "1"}), good),
        (json!({"at_hash": other_hash}), json!({}), bad),
        (json!({"at_hash": ""}), json!({}), bad),
        (json!({"at_hash": 7}), json!({}), bad),
        (json!({"aud": [CLIENT_ID]}), json!({}), good),
        (json!({"aud": [CLIENT_ID, "another-client"]}), json!({}), bad),
        (json!({"aud": ["another-client", CLIENT_ID], "azp": ""}), json!({}), bad),
        (json!({"aud": [CLIENT_ID, "another-client"], "azp": [CLIENT_ID]}), json!({}), bad),
        (json!({"aud": ["another-client"], "azp": CLIENT_ID}), json!({}), bad),
        (json!({"aud": [CLIENT_ID, "another-client"], "azp": CLIENT_ID}), json!({}), good),
        (json!({"aud": [CLIENT_ID, "https://api.example.com"]}), json!({}), good),
        (json!({"azp": CLIENT_ID}), json!({}), good),
        (json!({"azp": "another-client"}), json!({}), bad),
        (hours(24), json!({}), good),
        (hours(25), json!({}), bad),
        (hours(115 * 24), json!({}), bad),
        (json!({"events": {}}), json!({}), bad),
    ] {
        app.provider.change_claims(id.clone(), access.clone());
        let (begun, body) = agreed(&app, &server).await;
        let answer = callback(&app, &server, Some(&begun.cookie), &body).await;
        if answer.outcome() != expected {
            wrong.push(format!("{id} {access}: {:?}, not {expected:?}: {}", answer.outcome(), answer.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    app.provider.heal();
    app.provider.fail(Fault::LowercaseType);
    log_in(&app, &server).await;
}

#[tokio::test]
async fn client_secret_can_go_in_the_body() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    app.provider.fail(Fault::SecretInBodyOnly);
    let server = app.serve(&[]).await;
    let token = log_in(&app, &server).await;
    app.validate(&server, &token).await.assert_status(200);
}

#[tokio::test]
async fn odd_provider_metadata_stops_no_token() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    app.provider.fail(Fault::OddMetadata);
    let server = app.server(&[]).await;
    let token = log_in(&app, &server).await;
    app.validate(&server, &token).await.assert_status(200);
    let answer = logout(&app, &server, &json!({"redirect_uri": "http://localhost:3000/"})).await;
    assert_eq!(answer.outcome(), (503, "SYS_004"), "there is nowhere to log out");

    app.provider.fail(Fault::NoLogin);
    let server = app.server(&[]).await;
    app.validate(&server, &token).await.assert_status(200);
    let answer = app.http.get(format!("{}/api/v1/auth/login", server.base())).send().await.unwrap();
    let answer = Answer::read(answer).await;
    answer.assert_error(503, "SYS_004");
    server.log_line("its metadata names no usable authorization_endpoint", "ERROR").await;
}

#[tokio::test]
async fn a_login_into_a_tenant_that_is_not_served_is_refused() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    for (tenant, expected) in [
        ("system", (403, "AUTH_007")),
        ("no", (403, "AUTH_007")),
        ("nobody-knows", (403, "AUTH_009")),
        ("suspended", (403, "AUTH_009")),
        ("deleted", (403, "AUTH_009")),
        ("on-trial", (200, "-")),
    ] {
        let mut person = app.ada();
        person.tenant = tenant.to_owned();
        app.provider.seat(person);
        let (begun, body) = agreed(&app, &server).await;
        let answer = callback(&app, &server, Some(&begun.cookie), &body).await;
        assert_eq!(answer.outcome(), expected, "{tenant}");
    }
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_by_what_they_lack() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    for path in ["callback", "logout"] {
        let json = Some("application/json");
        let valid = if path == "callback" {
            r#"{"code":"a","state":"b"}"#
        } else {
            r#"{"redirect_uri":"http://localhost:3000/"}"#
        };
        let first = if path == "callback" { "code" } else { "redirect_uri" };
        let typed = format!("{{\"{first}\":7,\"state\":\"b\"}}");
        let extra = valid.replacen('{', "{\"admin\":true,", 1);
        for (kind, body, expected) in [
            (json, "", (400, "VAL_003")),
            (json, "{", (400, "VAL_003")),
            (json, "code=a&state=b", (400, "VAL_003")),
            (json, "{}", (400, "VAL_002")),
            (json, "{\"state\":\"b\"}", (400, if path == "callback" { "VAL_002" } else { "VAL_001" })),
            (json, "7", (400, "VAL_001")),
            (json, &typed, (400, "VAL_001")),
            (json, &extra, (400, "VAL_001")),
            (None, valid, (415, "VAL_005")),
            (Some("text/plain"), valid, (415, "VAL_005")),
            (Some("application/x-www-form-urlencoded"), valid, (415, "VAL_005")),
        ] {
            let mut request = app.http.post(format!("{}/api/v1/auth/{path}", server.base())).body(body.to_owned());
            if let Some(kind) = kind {
                request = request.header(CONTENT_TYPE, kind);
            }
            let answer = Answer::read(request.send().await.unwrap()).await;
            assert_eq!(answer.outcome(), expected, "{path} {kind:?} {body}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn logout_works_with_every_provider() {
    let goodbye = "http://localhost:3000/goodbye?from=a&to=b#end";
    for shape in SHAPES {
        let app = TestApp::on_sqlite(shape).await;
        let server = app.server(&[]).await;
        app.provider.register(goodbye);
        // All that a front end has is what the login gave it.
        let (begun, body) = agreed(&app, &server).await;
        let login = callback(&app, &server, Some(&begun.cookie), &body).await.body;
        let hint = login["id_token"].as_str().or(login["access_token"].as_str()).unwrap().to_owned();
        let answer = logout(&app, &server, &json!({"redirect_uri": goodbye, "id_token_hint": hint})).await;
        assert_eq!(answer.status, 200, "{shape:?}: {}", answer.body);
        let url = answer.body["logout_url"].as_str().unwrap();
        let led = app.http.get(url).send().await.unwrap();
        assert_eq!(led.status(), 302, "{shape:?}: {url}");
        assert_eq!(led.headers()[LOCATION], goodbye, "{shape:?}");
        if !matches!(shape, Shape::Okta | Shape::OktaIdToken) {
            let answer = logout(&app, &server, &json!({"redirect_uri": goodbye})).await;
            let led = app.http.get(answer.body["logout_url"].as_str().unwrap()).send().await.unwrap();
            assert_eq!(led.status(), 302, "{shape:?} without an ID token");
        }
        assert_log_without(&server, [hint.as_str()]);
    }
}

#[tokio::test]
async fn logout_names_the_page_as_it_was_sent() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    // Providers compare letter by letter (RFC 3986, section 6.2.1), also what a URL library would write otherwise.
    for page in ["http://localhost:3000", "http://localhost:3000/", "http://localhost:3000/a/../b"] {
        let answer = logout(&app, &server, &json!({"redirect_uri": page})).await;
        let url = Url::parse(answer.body["logout_url"].as_str().unwrap()).unwrap();
        let named = url.query_pairs().find(|(name, _)| name == "post_logout_redirect_uri").unwrap().1;
        assert_eq!(named, page);
    }
}

#[tokio::test]
async fn a_logout_leads_nowhere_else() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    for target in [
        "",
        "/goodbye",
        "//localhost:3000/",
        "localhost:3000",
        "https://evil.example/",
        "https://localhost:3000/",
        "http://localhost:3001/",
        "http://localhost/",
        "http://127.0.0.1:3000/",
        "http://localhost:3000.evil.example/",
        "http://localhost:3000@evil.example/",
        "http://evil.example/?http://localhost:3000/",
        "http://evil.example#http://localhost:3000/",
        "http://evil.example\\@localhost:3000/",
        "http://sub.localhost:3000/",
        "javascript:alert(1)//http://localhost:3000/",
        "data:text/html,hello",
        "null",
        "*",
    ] {
        let answer = logout(&app, &server, &json!({"redirect_uri": target})).await;
        assert_eq!(answer.outcome(), (400, "AUTH_006"), "{target}: {}", answer.body);
    }
    // What looks like more parameters stays a part of the one.
    let target = "http://localhost:3000/?a=b&client_id=evil&post_logout_redirect_uri=http://evil.example/";
    let answer = logout(&app, &server, &json!({"redirect_uri": target, "id_token_hint": "a&client_id=evil"})).await;
    let url = Url::parse(answer.body["logout_url"].as_str().unwrap()).unwrap();
    let values = |wanted: &str| {
        url.query_pairs().filter(|(name, _)| name == wanted).map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values("client_id"), [CLIENT_ID]);
    assert_eq!(values("post_logout_redirect_uri"), [target]);
    assert_eq!(values("id_token_hint"), ["a&client_id=evil"]);
}

#[tokio::test]
async fn a_hint_longer_than_a_token_is_refused() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    for (length, expected) in [(16 * 1024, (200, "-", "-")), (16 * 1024 + 1, (400, "VAL_001", "id_token_hint"))] {
        let body = json!({"redirect_uri": "http://localhost:3000/", "id_token_hint": "a".repeat(length)});
        assert_eq!(logout(&app, &server, &body).await.refusal(), expected, "{length}");
    }
}

#[tokio::test]
async fn logout_address_is_a_setting() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[("OIDC_END_SESSION_ENDPOINT", "http://127.0.0.1:1/logout?realm=a%26b")]).await;
    let answer = logout(&app, &server, &json!({"redirect_uri": "http://localhost:3000/"})).await;
    let url = answer.body["logout_url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:1/logout?realm=a%26b&"), "{url}");
}
