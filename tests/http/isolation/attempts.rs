//! Ten thousand attempts on another tenant's rows: none succeeds, and none can tell a row from none.

use crate::isolation::rows_of;
use crate::support::{Answer, Request, TestApp, TestTenant, at, new_document, page};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use test_support::Database;
use uuid::Uuid;

const ATTEMPTS: usize = 10_000;

/// How many are under way at once.
const AT_ONCE: usize = 16;

/// A row as its own tenant knows it.
struct Row {
    body: Value,
    etag: String,
}

/// A tenant with live and deleted rows, and the cursors of its lists.
struct Side {
    clinic: TestTenant,
    users: Vec<Row>,
    documents: Vec<Row>,
    cursors: Vec<String>,
    /// The ids of all that its lists may show.
    own: HashSet<String>,
}

impl Side {
    async fn fill(clinic: TestTenant) -> Self {
        let admin = &clinic.admin;
        let row = async |kind: &str, body: Value, gone: bool| {
            let read = admin.get(&at(kind, &body)).await;
            if gone {
                assert_eq!(admin.delete(&at(kind, &body)).await.status, 204);
            }
            Row { etag: read.etag().to_owned(), body }
        };
        let (mut users, mut documents) = (Vec::new(), Vec::new());
        // What is taken in one tenant is free in another.
        for number in 0..12 {
            users.push(row("users", clinic.user(&format!("user-{number}@example.org")).await, number % 4 == 3).await);
        }
        for number in 0..24 {
            let owner = &users[number % 3].body["id"];
            documents.push(row("documents", clinic.document(owner).await, number % 4 == 3).await);
        }
        let mut cursors = Vec::new();
        for list in ["users", "documents"] {
            let mut cursor = Value::Null;
            loop {
                cursor = admin.get(&page(list, 4, &cursor)).await.body["next_cursor"].clone();
                let Some(text) = cursor.as_str() else { break };
                cursors.push(text.to_owned());
            }
        }
        let own = users.iter().chain(&documents).map(|row| row.body["id"].as_str().unwrap().to_owned()).collect();
        Self { clinic, users, documents, cursors, own }
    }
}

/// Every way to address `id`, which `tag` is a version of, by name.
fn ways(kind: &'static str, id: &Value, tag: &str, own: &Side) -> Vec<(String, Request)> {
    let path = format!("{kind}/{}", id.as_str().unwrap());
    let changes = if kind == "users" { json!({"full_name": "taken"}) } else { json!({"filename": "taken"}) };
    let mut ways = vec![
        ("read".to_owned(), Request::new("GET", &path)),
        ("restore".to_owned(), Request::new("POST", format!("{path}/restore"))),
        ("change nothing".to_owned(), Request::new("PATCH", path.clone()).body(json!({}))),
    ];
    for (name, tag) in [("any version", None), ("*", Some("*")), ("its version", Some(tag))] {
        for attempt in [Request::new("PATCH", path.clone()).body(changes.clone()), Request::new("DELETE", path.clone())]
        {
            let attempt = tag.map_or(attempt.clone(), |tag| attempt.if_match(tag));
            ways.push((format!("{} {name}", attempt.method), attempt));
        }
    }
    if kind == "users" {
        let document = at("documents", &own.documents[0].body);
        ways.extend([
            ("own a new document".to_owned(), Request::new("POST", "documents".to_owned()).body(new_document(id))),
            ("own a document".to_owned(), Request::new("PATCH", document).body(json!({"user_id": id}))),
            ("documents of".to_owned(), Request::new("GET", format!("documents?user_id={}", id.as_str().unwrap()))),
            ("deeds of".to_owned(), Request::new("GET", format!("audit-logs?user_id={}", id.as_str().unwrap()))),
        ]);
    }
    ways.into_iter().map(|(name, attempt)| (format!("{kind}: {name}"), attempt)).collect()
}

/// Ways to address another tenant as a whole, or a place in its lists.
fn ways_to_tenant(tenant: Uuid, tag: &str, own: &Side) -> Vec<(String, Request)> {
    let mut body = new_document(&own.users[0].body["id"]);
    body["storage_key"] = json!(format!("{tenant}/file"));
    let rename = Request::new("PATCH", "tenant".to_owned()).body(json!({"name": "taken"})).if_match(tag);
    vec![
        ("lie under".to_owned(), Request::new("POST", "documents".to_owned()).body(body)),
        ("rename by its version".to_owned(), rename),
    ]
}

/// What an attempt is answered, as far as it can be compared.
type Seen = (u16, Value, BTreeMap<String, String>);

/// What can be compared: status, body and headers but for what names the request.
fn seen(answer: &Answer) -> Seen {
    let mut body = answer.body.clone();
    if let Some(error) = body["error"].as_object_mut() {
        assert!(error.remove("request_id").is_some());
    }
    let headers = answer.headers.iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status, body, headers)
}

/// All ways of `own` to what is `other`'s, each with what the same way to nothing at all is answered.
async fn attempts(own: &Side, other: &Side) -> Vec<(Request, String, Seen)> {
    let no_tag = "\"0123456789abc\"";
    let mut controls = BTreeMap::new();
    for kind in ["users", "documents"] {
        for _ in 0..2 {
            for (name, attempt) in ways(kind, &json!(Uuid::now_v7()), no_tag, own) {
                let answer = seen(&attempt.by(&own.clinic.admin).await);
                assert_eq!(controls.entry(name.clone()).or_insert_with(|| answer.clone()), &answer, "{name}");
            }
        }
    }
    for (name, attempt) in ways_to_tenant(Uuid::now_v7(), no_tag, own) {
        controls.insert(name, seen(&attempt.by(&own.clinic.admin).await));
    }
    let mut all = ways_to_tenant(other.clinic.id, other.clinic.admin.get("tenant").await.etag(), own);
    for (kind, rows) in [("users", &other.users), ("documents", &other.documents)] {
        all.extend(rows.iter().flat_map(|row| ways(kind, &row.body["id"], &row.etag, own)));
    }
    let with_control = |(name, attempt): (String, Request)| {
        let control = controls[&name].clone();
        (attempt, name, control)
    };
    all.into_iter().map(with_control).collect()
}

#[tokio::test]
async fn another_tenants_rows_look_absent() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::start(database).await;
    let (one, two) = (Side::fill(app.new_tenant().await).await, Side::fill(app.new_tenant().await).await);
    let before = (rows_of(&app.owner, one.clinic.id).await, rows_of(&app.owner, two.clinic.id).await);

    let mut all = Vec::new();
    for (own, other) in [(&one, &two), (&two, &one)] {
        for (attempt, name, control) in attempts(own, other).await {
            let expected = control.0;
            let lists = attempt.method == "GET" && attempt.path.contains('?');
            assert!(expected >= 400 || lists && control.1["items"] == json!([]), "{name}: {expected} {}", control.1);
            all.push((own, attempt, Some((name, control))));
        }
        for cursor in &other.cursors {
            for list in ["users", "documents", "users?role=member", "documents?status=processing"] {
                let path = page(list, 200, &json!(cursor));
                all.push((own, Request::new("GET", path), None));
            }
        }
    }
    let kinds = all.len();
    let attempts = all.iter().cycle().take(ATTEMPTS);
    let made = futures_util::stream::iter(attempts).map(async |(own, attempt, control)| {
        let answer = attempt.by(&own.clinic.admin).await;
        if let Some((name, control)) = control {
            assert_eq!(&seen(&answer), control, "{name}: {attempt:?}");
            return;
        }
        // A place in another's list is a place in one's own.
        assert_eq!(answer.status, 200, "{attempt:?}: {}", answer.body);
        for row in answer.items() {
            assert!(own.own.contains(row["id"].as_str().unwrap()), "{attempt:?} shows {row}");
        }
    });
    let made = made.buffer_unordered(AT_ONCE).count().await;
    assert!(made == ATTEMPTS && kinds > 700, "{made} attempts of {kinds} kinds");

    let after = (rows_of(&app.owner, one.clinic.id).await, rows_of(&app.owner, two.clinic.id).await);
    assert_eq!(before, after);
}
