//! What is wrong with a request is named: the body's fields, the query's parameters, the id.

use crate::support::{Answer, TestApp, TestTenant, at, new_document};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(
    missing_field_is_named,
    wrong_text_is_named,
    wrong_type_or_number_is_named,
    unknown_field_is_refused,
    unreadable_body_is_refused,
    body_of_another_type_is_refused,
    wrong_query_parameter_is_named,
    longest_values_are_accepted
);

/// Text of so many characters, each of two bytes.
pub(crate) fn long(characters: usize) -> String {
    "é".repeat(characters)
}

/// A tenant with a user and a document, which wrong requests are to leave as they are.
struct Fixture {
    clinic: TestTenant,
    owner: Value,
    document: Value,
}

impl Fixture {
    async fn new(app: &TestApp) -> Self {
        let clinic = app.new_tenant().await;
        let owner = clinic.user("owner@example.org").await;
        let document = clinic.document(&owner["id"]).await;
        Self { clinic, owner, document }
    }

    /// A body that is accepted.
    fn valid(&self, kind: &str) -> Value {
        if kind == "users" { json!({"email": "ada@example.org"}) } else { new_document(&self.owner["id"]) }
    }

    /// The path of the row that is there.
    fn path(&self, kind: &str) -> String {
        at(kind, if kind == "users" { &self.owner } else { &self.document })
    }

    /// A new row with this value, and where it may be changed a change to it, are refused and name the field; `-` is none.
    async fn refuses(&self, kind: &str, member: &str, value: &Value, field: &str) {
        let mut body = self.valid(kind);
        body[member] = value.clone();
        let created = self.clinic.admin.post(kind, &body).await;
        assert_eq!(created.refusal(), (400, "VAL_001", field), "POST {kind}, {member}: {value}");
        if member != "bucket" {
            let changed = self.clinic.admin.patch(&self.path(kind), &json!({member: value})).await;
            assert_eq!(changed.refusal(), (400, "VAL_001", field), "PATCH {kind}, {member}: {value}");
        }
    }

    /// Nothing is there but what was there at first.
    async fn is_unchanged(&self) {
        let all = (self.clinic.viewer.all("users").await, self.clinic.viewer.all("documents").await);
        assert_eq!(
            all,
            (vec![self.owner.clone()], vec![self.document.clone()]),
            "a refused request leaves nothing behind"
        );
    }
}

async fn missing_field_is_named(database: Database) {
    let app = TestApp::start(database).await;
    let fixture = Fixture::new(&app).await;
    for (kind, member) in [
        ("users", "email"),
        ("documents", "bucket"),
        ("documents", "filename"),
        ("documents", "content_type"),
        ("documents", "size_bytes"),
        // The caller has no user row, which would be the owner.
        ("documents", "user_id"),
    ] {
        let mut body = fixture.valid(kind);
        body.as_object_mut().unwrap().remove(member);
        assert_eq!(fixture.clinic.admin.post(kind, &body).await.refusal(), (400, "VAL_002", member), "{kind}");
    }
    fixture.is_unchanged().await;
}

async fn wrong_text_is_named(database: Database) {
    let app = TestApp::start(database).await;
    let fixture = Fixture::new(&app).await;
    for (kind, member) in [
        ("users", "full_name"),
        ("users", "external_idp_id"),
        ("documents", "filename"),
        ("documents", "content_type"),
        ("documents", "bucket"),
    ] {
        for value in ["", " xyz", "xyz ", "a\nb", "\u{0}", &long(256)] {
            fixture.refuses(kind, member, &json!(value), member).await;
        }
        fixture.refuses(kind, member, &json!(7), member).await;
    }
    let too_long = format!("ada@{}.org", "x.".repeat(200));
    for email in [
        "",
        "ada",
        "ada@",
        "@example.org",
        "ada@example",
        "Ada <ada@example.org>",
        " ada@example.org",
        "a\u{0}@example.org",
        "änne@example.org",
        "anne@exämple.org",
        &too_long,
    ] {
        fixture.refuses("users", "email", &json!(email), "email").await;
    }
    fixture.is_unchanged().await;
}

async fn wrong_type_or_number_is_named(database: Database) {
    let app = TestApp::start(database).await;
    let fixture = Fixture::new(&app).await;
    for (kind, member, value) in [
        ("users", "role", json!("owner")),
        ("users", "role", json!("ADMIN")),
        ("documents", "status", json!("done")),
        ("documents", "status", json!("")),
        ("documents", "user_id", json!("x")),
        ("documents", "user_id", json!(7)),
        ("documents", "metadata", json!([])),
        ("documents", "metadata", json!("{}")),
        ("documents", "metadata", json!(1)),
        ("documents", "metadata", json!(true)),
        ("documents", "size_bytes", json!(-1)),
        ("documents", "size_bytes", json!(i64::MIN)),
        ("documents", "size_bytes", json!(9_223_372_036_854_775_808_u64)),
        ("documents", "size_bytes", json!(1.5)),
        ("documents", "size_bytes", json!(1e3)),
        ("documents", "size_bytes", json!("1")),
    ] {
        fixture.refuses(kind, member, &value, member).await;
    }
    fixture.is_unchanged().await;
}

/// Fields that are not the caller's to set are unknown ones. A name that the caller has made up is not repeated.
async fn unknown_field_is_refused(database: Database) {
    let app = TestApp::start(database).await;
    let fixture = Fixture::new(&app).await;
    for (kind, members) in [
        ("users", ["id", "tenant_id", "created_at", "deleted_at", "last_login_at", "nonsense"]),
        ("documents", ["id", "tenant_id", "created_at", "updated_at", "deleted_at", "nonsense"]),
    ] {
        for member in members {
            fixture.refuses(kind, member, &fixture.owner["id"], "-").await;
        }
    }
    for member in ["bucket", "storage_key"] {
        let changes = json!({member: fixture.document[member]});
        let refused = fixture.clinic.admin.patch(&fixture.path("documents"), &changes).await;
        assert_eq!(refused.outcome(), (400, "VAL_001"), "{member} cannot be changed");
    }
    fixture.is_unchanged().await;
}

async fn unreadable_body_is_refused(database: Database) {
    let app = TestApp::start(database).await;
    let fixture = Fixture::new(&app).await;
    for (text, code, member) in [
        ("", "VAL_003", "-"),
        ("{", "VAL_003", "-"),
        ("x", "VAL_003", "-"),
        (r#"{"email": "a@example.org"} x"#, "VAL_003", "-"),
        (r#"{"email": "\ud800"}"#, "VAL_003", "email"),
        (r#"{"email": "a@example.org", "role": 1}"#, "VAL_003", "role"),
        (r#"["a@example.org", null, null, "admin"]"#, "VAL_001", "-"),
        ("null", "VAL_001", "-"),
    ] {
        let refused = fixture.clinic.admin.send_text("POST", "users", None, Some(text)).await;
        assert_eq!(refused.refusal(), (400, code, member), "{text}");
    }
    fixture.is_unchanged().await;
}

async fn body_of_another_type_is_refused(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let user = clinic.user("ada@example.org").await;
    let send = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut request = clinic.admin.request(method, path).body(r#"{"full_name": "Ada", "email": "b@example.org"}"#);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(request.send().await.unwrap()).await
    };
    let json = ("content-type", "application/json");
    for (method, path) in [("POST", "users".to_owned()), ("PATCH", at("users", &user))] {
        for (headers, field) in [
            (&[][..], "Content-Type"),
            (&[("content-type", "text/plain")], "Content-Type"),
            (&[("content-type", "application/merge-patch+json")], "Content-Type"),
            (&[("content-type", "application/vnd.x+json")], "Content-Type"),
            (&[("content-type", "application/json-patch+json")], "Content-Type"),
            (&[("content-type", "application/jsonx")], "Content-Type"),
            (&[("content-type", "application/json; charset=utf-16")], "Content-Type"),
            (&[("content-type", "application/json; charset=\"iso-8859-1\"")], "Content-Type"),
            (&[json, json], "Content-Type"),
            (&[json, ("content-encoding", "gzip")], "Content-Encoding"),
            (&[json, ("content-encoding", "x-unknown")], "Content-Encoding"),
            (&[json, ("content-encoding", "identity, br")], "Content-Encoding"),
        ] {
            let refused = send(method, &path, headers).await;
            assert_eq!(refused.refusal(), (415, "VAL_005", field), "{method} {headers:?}: {}", refused.body);
            assert_eq!(refused.header("accept"), "application/json");
            assert_eq!(refused.header("accept-encoding"), "identity");
        }
    }
    assert_eq!(clinic.admin.all("users").await, std::slice::from_ref(&user), "nothing is changed");
    for headers in [
        &[json][..],
        &[("content-type", "Application/JSON ; Charset=UTF-8")],
        &[("content-type", "application/json; charset=\"utf-8\"; x=y")],
        &[json, ("content-encoding", "Identity")],
    ] {
        send("PATCH", &at("users", &user), headers).await.assert_status(200);
    }
}

async fn wrong_query_parameter_is_named(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    clinic.user("ada@example.org").await;
    let no_time = |micros: i64| BASE64_URL_SAFE_NO_PAD.encode([&micros.to_be_bytes()[..], &[0xff; 16]].concat());
    let (ancient, future) = (no_time(i64::MIN / 32), no_time(i64::MAX));
    // Of a year that PostgreSQL does not have.
    let before_time = no_time(-7000 * 31_556_952 * 1_000_000);
    let mut wrong = Vec::new();
    for list in ["users", "documents", "audit-logs"] {
        wrong.extend(["0", "201", "18446744073709551615"].map(|it| (list, "limit", it, "VAL_001")));
        wrong.extend(["-1", "x", "", "1.5", "18446744073709551616"].map(|it| (list, "limit", it, "VAL_003")));
        wrong.extend(["x", "", "%00", "AAAA"].map(|it| (list, "cursor", it, "VAL_003")));
    }
    for list in ["users", "documents"] {
        wrong.extend([&ancient, &future, &before_time].map(|it| (list, "cursor", it.as_str(), "VAL_003")));
    }
    wrong.extend(["owner", "", "ADMIN", "%00"].map(|it| ("users", "role", it, "VAL_003")));
    wrong.extend(["done", "", "%00"].map(|it| ("documents", "status", it, "VAL_003")));
    wrong.extend(["x", "", "%00"].map(|it| ("documents", "user_id", it, "VAL_003")));
    wrong.extend(["x", "", "%00"].map(|it| ("audit-logs", "user_id", it, "VAL_003")));
    wrong.extend(["READ", "%00"].map(|it| ("audit-logs", "action", it, "VAL_003")));
    wrong.extend(["", "%00"].map(|it| ("audit-logs", "resource_type", it, "VAL_003")));
    for (list, parameter, value, code) in wrong {
        let refused = clinic.admin.get(&format!("{list}?{parameter}={value}")).await;
        assert_eq!(refused.refusal(), (400, code, parameter), "{list}?{parameter}={value}");
    }
    for (list, query) in [
        ("users", "nonsense=1"),
        ("documents", "tenant_id=x"),
        ("users", "status=failed"),
        ("users", "limit=1&limit=2"),
    ] {
        let refused = clinic.admin.get(&format!("{list}?{query}")).await;
        assert_eq!(refused.outcome(), (400, "VAL_001"), "{list}?{query}");
    }
    for kind in ["users", "documents"] {
        for id in ["x", "%00", "00000000-0000-0000-0000-00000000000g"] {
            let path = format!("{kind}/{id}");
            for refused in [
                clinic.admin.get(&path).await,
                clinic.admin.patch(&path, &json!({})).await,
                clinic.admin.delete(&path).await,
                clinic.admin.restore(&path).await,
            ] {
                assert_eq!(refused.refusal(), (400, "VAL_003", "id"), "{path}");
            }
        }
    }
}

async fn longest_values_are_accepted(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await;
    let body = json!({"email": "edge@example.org", "full_name": long(255), "external_idp_id": long(255)});
    assert_eq!(clinic.admin.make("users", &body).await["full_name"], long(255));
    for size in [0, i64::MAX] {
        let mut body = new_document(&owner["id"]);
        body["filename"] = json!(long(255));
        body["size_bytes"] = json!(size);
        assert_eq!(clinic.admin.make("documents", &body).await["size_bytes"], size);
    }
}
