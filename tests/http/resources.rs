//! Tenants, users and documents over the API: who may do what, and what comes of it, on both databases alike.

use crate::clinic::{Clinic, a_document, at, page};
use crate::identity::World;
use crate::run_on;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bulkhead::entity::{document, user};
use bulkhead::tenancy::Table;
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use test_support::provider::Shape;
use test_support::{Database, Server, on_both_databases};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

on_both_databases!(
    what_is_made_is_read_changed_deleted_and_restored,
    a_tenant_sees_itself_and_changes_its_name_alone,
    each_operation_has_the_least_role_that_may_do_it,
    a_change_names_the_version_that_it_changes,
    of_changes_of_one_version_exactly_one_wins,
    an_email_is_one_users_until_they_are_deleted,
    a_subject_is_one_users_until_they_are_deleted,
    what_is_wrong_with_a_body_is_named,
    values_may_go_as_far_as_is_said,
    what_is_wrong_with_a_query_is_named,
    null_clears_and_what_is_left_out_stays,
    every_change_has_a_later_time_and_an_etag_of_its_own,
    pages_hold_every_row_once_newest_first_while_others_come_and_go,
    a_page_has_1_to_200_rows,
    filters_narrow_a_list,
    a_document_lies_under_its_tenant,
    a_document_belongs_to_a_live_user,
    metadata_comes_back_as_it_went_in,
    a_suspended_tenant_is_refused_everywhere
);

/// A world of the database's own, a server on it, and what a test does there.
async fn with_clinic(database: Database, test: impl AsyncFnOnce(&World, &Server<'_>, &Clinic)) {
    let world = World::new(Shape::Plain, database).await;
    let server = world.server(&[]).await;
    let connection = world.database.connect().await;
    let clinic = Clinic::open(&connection, &world, &server).await;
    connection.close().await.unwrap();
    test(&world, &server, &clinic).await;
}

/// The time of a member.
fn moment(row: &Value, member: &str) -> OffsetDateTime {
    OffsetDateTime::parse(row[member].as_str().unwrap(), &Rfc3339).unwrap()
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

/// `row` with these members in place of its own, and no time of its last change.
fn with(row: &Value, changes: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row["updated_at"].take();
    row
}

async fn what_is_made_is_read_changed_deleted_and_restored(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        // The last admin could not be deleted.
        let admin = json!({"email": "admin@example.org", "external_idp_id": "idp|admin", "role": "admin"});
        clinic.admin.make("users", &admin).await;
        let user =
            json!({"email": "ada@example.org", "external_idp_id": "idp|ada", "full_name": "Ada", "role": "viewer"});
        let mut document = a_document(&owner);
        document["metadata"] = json!({"pages": 3});
        document["status"] = json!("failed");
        let cases = [
            ("users", user, json!({"full_name": "Ada King", "role": "admin"})),
            ("documents", document, json!({"filename": "new.pdf", "status": "completed", "metadata": {}})),
        ];
        for (kind, body, changes) in cases {
            let made = clinic.admin.post(kind, &body).await;
            assert_eq!(made.status, 201, "{}", made.body);
            assert_eq!(with(&made.body, &body), with(&made.body, &json!({})), "{kind}: what was sent is there");
            assert_eq!(made.body["created_at"], made.body["updated_at"]);
            let path = at(kind, &made.body);
            assert_eq!(made.header("location"), format!("/api/v1/{path}"));
            let read = clinic.viewer.get(&path).await;
            assert_eq!((read.status, &read.body, read.etag()), (200, &made.body, made.etag()));
            assert!(ids(&clinic.viewer.all(kind).await).contains(&made.body["id"].as_str().unwrap()));

            let changed = clinic.admin.patch(&path, &changes).await;
            assert_eq!(changed.status, 200, "{}", changed.body);
            assert_eq!(with(&changed.body, &json!({})), with(&made.body, &changes), "{kind}: nothing else has changed");
            let read = clinic.viewer.get(&path).await;
            assert_eq!((&read.body, read.etag()), (&changed.body, changed.etag()));

            let deleted = clinic.admin.delete(&path).await;
            assert_eq!((deleted.status, &deleted.body), (204, &Value::Null));
            for gone in [
                clinic.viewer.get(&path).await,
                clinic.admin.patch(&path, &changes).await,
                clinic.admin.delete(&path).await,
            ] {
                assert_eq!(gone.outcome(), (404, "RES_001"), "{kind}");
            }
            assert!(!ids(&clinic.viewer.all(kind).await).contains(&made.body["id"].as_str().unwrap()));

            let restored = clinic.admin.restore(&path).await;
            assert_eq!(restored.status, 200, "{}", restored.body);
            assert_eq!(with(&restored.body, &json!({})), with(&changed.body, &json!({})), "{kind}: as it was");
            let again = clinic.admin.restore(&path).await;
            assert_eq!((again.status, &again.body, again.etag()), (200, &restored.body, restored.etag()));
            assert_eq!(clinic.viewer.get(&path).await.body, restored.body);
        }
    })
    .await;
}

async fn a_tenant_sees_itself_and_changes_its_name_alone(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let read = clinic.viewer.get("tenant").await;
        assert_eq!(read.status, 200);
        let members: Vec<&str> = read.body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members.len(), 6, "no key of the operator's: {members:?}");
        assert_eq!((&read.body["id"], &read.body["external_id"]), (&json!(clinic.id), &json!(clinic.external_id)));

        let changes = json!({"name": "Saint Mary's"});
        let renamed = clinic.admin.send("PATCH", "tenant", Some(read.etag()), Some(&changes)).await;
        assert_eq!((renamed.status, with(&renamed.body, &json!({}))), (200, with(&read.body, &changes)));
        let stale = clinic.admin.send("PATCH", "tenant", Some(read.etag()), Some(&changes)).await;
        assert_eq!(stale.outcome(), (412, "RES_003"));
        for member in ["status", "external_id", "kms_key_arn", "id", "deleted_at"] {
            let refused = clinic.admin.patch("tenant", &json!({"name": "X", member: "active"})).await;
            assert_eq!(refused.outcome(), (400, "VAL_001"), "{member}");
        }
        assert_eq!(clinic.viewer.get("tenant").await.body, renamed.body);
        assert_eq!(clinic.admin.delete("tenant").await.outcome(), (405, "RES_004"));
    })
    .await;
}

async fn each_operation_has_the_least_role_that_may_do_it(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let user = clinic.user("ada@example.org").await;
        let document = clinic.document(&user["id"]).await;
        let (user_at, document_at) = (at("users", &user), at("documents", &document));
        let restore = |path: &str| format!("{path}/restore");
        let operations = [
            (0, "GET", "tenant".to_owned(), None),
            (2, "PATCH", "tenant".to_owned(), Some(json!({"name": "New"}))),
            (0, "GET", "users".to_owned(), None),
            (2, "POST", "users".to_owned(), Some(json!({"email": "new@example.org"}))),
            (0, "GET", user_at.clone(), None),
            (2, "PATCH", user_at.clone(), Some(json!({"full_name": "New"}))),
            (2, "DELETE", user_at.clone(), None),
            (2, "POST", restore(&user_at), None),
            (0, "GET", "documents".to_owned(), None),
            (1, "POST", "documents".to_owned(), Some(a_document(&user["id"]))),
            (0, "GET", document_at.clone(), None),
            (1, "PATCH", document_at.clone(), Some(json!({"filename": "new"}))),
            (1, "DELETE", document_at.clone(), None),
            (1, "POST", restore(&document_at), None),
            (2, "GET", "audit-logs".to_owned(), None),
        ];
        let callers = [&clinic.viewer, &clinic.member, &clinic.admin];
        for (least, method, path, body) in operations {
            for (rank, caller) in callers.into_iter().enumerate() {
                let answer = caller.send(method, &path, None, body.as_ref()).await;
                if rank < least {
                    assert_eq!(answer.outcome(), (403, "AUTH_008"), "{method} {path} by rank {rank}");
                } else if path != "users" || method == "GET" || rank == least {
                    assert!(answer.status < 300 || answer.status == 404, "{method} {path} by {rank}: {}", answer.body);
                }
            }
            // Deleted by one of them, if it was to be; never by a viewer.
            for path in [&user_at, &document_at] {
                assert_eq!(clinic.admin.restore(path).await.status, 200);
            }
        }
    })
    .await;
}

async fn a_change_names_the_version_that_it_changes(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let user = clinic.user("ada@example.org").await;
        let document = clinic.document(&user["id"]).await;
        let cases = [
            (at("documents", &document), "filename", true),
            (at("users", &user), "full_name", true),
            ("tenant".to_owned(), "name", false),
        ];
        for (path, member, deletable) in cases {
            let change = async |tag: &str, value: &str| {
                clinic.admin.send("PATCH", &path, Some(tag), Some(&json!({member: value}))).await
            };
            let old = clinic.admin.get(&path).await;
            let good = change(old.etag(), "one").await;
            assert_eq!((good.status, &good.body[member]), (200, &json!("one")), "{path}: {}", good.body);
            assert_ne!(good.etag(), old.etag());

            let weak = format!("W/{}", good.etag());
            let other = format!("\"{}\"", Uuid::now_v7());
            for tag in [old.etag(), &weak, &other, "\"\""] {
                assert_eq!(change(tag, "lost").await.outcome(), (412, "RES_003"), "{path}: {tag}");
                let empty = clinic.admin.send("PATCH", &path, Some(tag), Some(&json!({}))).await;
                assert_eq!(empty.outcome(), (412, "RES_003"), "{path}: {tag}, no change");
                if deletable {
                    let deleted = clinic.admin.send("DELETE", &path, Some(tag), None).await;
                    assert_eq!(deleted.outcome(), (412, "RES_003"), "{path}: {tag}");
                }
            }
            for tag in ["", "x", "\"x", "x\"", "\"a\" \"b\"", "*, \"x\"", "w/\"x\"", "\"a\", b"] {
                let refused = change(tag, "lost").await;
                assert_eq!(refused.refusal(), (400, "VAL_003", "If-Match"), "{path}: {tag}");
            }
            let now = clinic.admin.get(&path).await;
            assert_eq!((&now.body, now.etag()), (&good.body, good.etag()), "{path}: nothing that was refused is done");

            assert_eq!(change("*", "two").await.body[member], "two");
            let now = clinic.admin.get(&path).await;
            assert_eq!(change(&format!("{other},{}", now.etag()), "three").await.body[member], "three");
            assert_eq!(clinic.admin.patch(&path, &json!({member: "four"})).await.body[member], "four");
            let now = clinic.admin.get(&path).await;
            let unchanged = clinic.admin.send("PATCH", &path, Some(now.etag()), Some(&json!({}))).await;
            assert_eq!((unchanged.status, &unchanged.body, unchanged.etag()), (200, &now.body, now.etag()));
            if deletable {
                let deleted = clinic.admin.send("DELETE", &path, Some(now.etag()), None).await;
                assert_eq!(deleted.status, 204);
                // What is gone is not found, whatever version is asked for.
                assert_eq!(change(now.etag(), "lost").await.outcome(), (404, "RES_001"));
                assert_eq!(change("*", "lost").await.outcome(), (404, "RES_001"));
                let restored = clinic.admin.restore(&path).await;
                assert_ne!(restored.etag(), now.etag(), "a version from before the deletion is an old one");
            }
        }
    })
    .await;
}

async fn of_changes_of_one_version_exactly_one_wins(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let user = clinic.user("ada@example.org").await;
        let document = clinic.document(&user["id"]).await;
        for (path, member) in [(at("users", &user), "full_name"), (at("documents", &document), "filename")] {
            for round in 0..8 {
                let tag = clinic.admin.get(&path).await.etag().to_owned();
                let bodies: Vec<Value> = (0..4).map(|at| json!({member: format!("{round}-{at}")})).collect();
                let changes = bodies.iter().map(|body| clinic.admin.send("PATCH", &path, Some(&tag), Some(body)));
                let answers = join_all(changes).await;
                let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
                let lost = answers.iter().filter(|answer| answer.outcome() == (412, "RES_003")).count();
                assert_eq!((won.len(), lost), (1, 3), "{path}, round {round}");
                let now = clinic.admin.get(&path).await;
                assert_eq!((&now.body, now.etag()), (&won[0].body, won[0].etag()), "the winner's change is there");
            }
        }
    })
    .await;
}

async fn an_email_is_one_users_until_they_are_deleted(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        const CLASH: (u16, &str, &str) = (409, "RES_002", "email");
        let first = clinic.user("ada@example.org").await;
        let other = clinic.user("other@example.org").await;
        let (first, other) = (at("users", &first), at("users", &other));
        let shouted = json!({"email": "ADA@Example.ORG"});
        let clash = clinic.admin.post("users", &shouted).await;
        assert_eq!(clash.refusal(), CLASH);
        assert_eq!(clash.body["error"]["detail"], "another one of the users has this email");
        assert_eq!(clinic.admin.patch(&other, &shouted).await.refusal(), CLASH);
        assert_eq!(clinic.viewer.get(&other).await.body["email"], "other@example.org");
        assert_eq!(clinic.admin.patch(&first, &shouted).await.status, 200, "one's own, in another case");

        assert_eq!(clinic.admin.delete(&first).await.status, 204);
        let second = clinic.user("ada@example.org").await;
        assert_eq!(clinic.admin.restore(&first).await.refusal(), CLASH, "somebody has it meanwhile");
        assert_eq!(clinic.viewer.get(&first).await.outcome(), (404, "RES_001"), "and it stays deleted");
        assert_eq!(clinic.admin.delete(&at("users", &second)).await.status, 204);
        assert_eq!(clinic.admin.restore(&first).await.status, 200);
    })
    .await;
}

async fn a_subject_is_one_users_until_they_are_deleted(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        const CLASH: (u16, &str, &str) = (409, "RES_002", "external_idp_id");
        let body = |email: &str| json!({"email": email, "external_idp_id": "idp|ada"});
        let first = clinic.admin.make("users", &body("one@example.org")).await;
        assert_eq!(clinic.admin.post("users", &body("two@example.org")).await.refusal(), CLASH);
        let other = at("users", &clinic.user("three@example.org").await);
        assert_eq!(clinic.admin.patch(&other, &json!({"external_idp_id": "idp|ada"})).await.refusal(), CLASH);
        assert_eq!(clinic.admin.delete(&at("users", &first)).await.status, 204);
        clinic.admin.make("users", &body("two@example.org")).await;
        assert_eq!(clinic.admin.restore(&at("users", &first)).await.refusal(), CLASH);
    })
    .await;
}

#[tokio::test]
async fn every_unique_index_names_the_field_of_a_clash() {
    let database = Database::sqlite();
    assert!(run_on(&database, &["migrate", "up"]).await.status.success());
    let connection = database.connect().await;
    let sql =
        "SELECT tbl_name || '.' || name AS name FROM sqlite_master WHERE sql LIKE 'CREATE UNIQUE INDEX%' ORDER BY 1";
    let rows = connection.query_all_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
    let indexes: Vec<String> = rows.iter().map(|row| row.try_get("", "name").unwrap()).collect();
    let named = |table: &str, unique: &[(&str, &str)]| -> Vec<String> {
        unique.iter().map(|(index, _)| format!("{table}.{index}")).collect()
    };
    let documents = named(document::Entity::NAME, document::Entity::UNIQUE);
    let users = named(user::Entity::NAME, user::Entity::UNIQUE);
    assert_eq!([documents, users].concat(), indexes, "src/tenancy/scope.rs lists them");
}

/// Text of so many characters, each of two bytes.
fn long(characters: usize) -> String {
    "é".repeat(characters)
}

async fn what_is_wrong_with_a_body_is_named(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let owner = clinic.user("owner@example.org").await;
        let document = clinic.document(&owner["id"]).await;
        let valid = |kind: &str| match kind {
            "users" => json!({"email": "ada@example.org"}),
            _ => a_document(&owner["id"]),
        };
        let required = [("users", "email"), ("documents", "bucket"), ("documents", "filename")];
        for (kind, member) in required.into_iter().chain([("documents", "content_type"), ("documents", "size_bytes")]) {
            let mut body = valid(kind);
            body.as_object_mut().unwrap().remove(member);
            assert_eq!(clinic.admin.post(kind, &body).await.refusal(), (400, "VAL_002", member), "{kind}");
        }
        let no_owner = json!({"bucket": "b", "filename": "f", "content_type": "t", "size_bytes": 0});
        let refused = clinic.admin.post("documents", &no_owner).await;
        assert_eq!(refused.refusal(), (400, "VAL_002", "user_id"), "the caller is no user here");

        let texts = |most: usize| {
            [json!(""), json!(" x"), json!("x "), json!("a\nb"), json!("\u{0}"), json!(long(most + 1)), json!(7)]
        };
        let mut wrong = Vec::new();
        for member in ["full_name", "external_idp_id"] {
            wrong.extend(texts(255).map(|value| ("users", member, value)));
        }
        for member in ["filename", "content_type", "bucket"] {
            wrong.extend(texts(255).map(|value| ("documents", member, value)));
        }
        wrong.extend(
            [
                "",
                "ada",
                "ada@",
                "@example.org",
                "ada@example",
                "Ada <ada@example.org>",
                " ada@example.org",
                "a\u{0}@example.org",
            ]
            .map(|email| ("users", "email", json!(email))),
        );
        wrong.push(("users", "email", json!(format!("ada@{}.org", "x.".repeat(200)))));
        wrong.extend([json!("owner"), json!("ADMIN")].map(|role| ("users", "role", role)));
        wrong.extend([json!("done"), json!("")].map(|status| ("documents", "status", status)));
        wrong.extend([json!("x"), json!(7)].map(|owner| ("documents", "user_id", owner)));
        wrong.extend([json!([]), json!("{}"), json!(1), json!(true)].map(|it| ("documents", "metadata", it)));
        let sizes =
            [json!(-1), json!(i64::MIN), json!(9_223_372_036_854_775_808_u64), json!(1.5), json!(1e3), json!("1")];
        wrong.extend(sizes.map(|size| ("documents", "size_bytes", size)));
        let before = (clinic.viewer.all("users").await, clinic.viewer.all("documents").await);
        for (kind, member, value) in &wrong {
            let mut body = valid(kind);
            body[member] = value.clone();
            assert_eq!(clinic.admin.post(kind, &body).await.refusal(), (400, "VAL_001", *member), "{kind}: {value}");
            if *member == "bucket" {
                continue;
            }
            let path = if *kind == "users" { at(kind, &owner) } else { at(kind, &document) };
            let refused = clinic.admin.patch(&path, &json!({*member: value})).await;
            assert_eq!(refused.refusal(), (400, "VAL_001", *member), "PATCH {kind}: {value}");
        }

        // Members that are not the caller's to set are unknown ones; a name of the caller's own is not repeated.
        for (kind, members) in [
            ("users", &["id", "tenant_id", "created_at", "deleted_at", "last_login_at", "nonsense"][..]),
            ("documents", &["id", "tenant_id", "created_at", "updated_at", "deleted_at", "nonsense"]),
        ] {
            for member in members {
                let mut body = valid(kind);
                body[*member] = json!(owner["id"]);
                assert_eq!(clinic.admin.post(kind, &body).await.refusal(), (400, "VAL_001", "-"), "{kind}: {member}");
                let path = if kind == "users" { at(kind, &owner) } else { at(kind, &document) };
                let refused = clinic.admin.patch(&path, &json!({*member: owner["id"]})).await;
                assert_eq!(refused.refusal(), (400, "VAL_001", "-"), "PATCH {kind}: {member}");
            }
        }
        for member in ["bucket", "storage_key"] {
            let refused = clinic.admin.patch(&at("documents", &document), &json!({member: document[member]})).await;
            assert_eq!(refused.outcome(), (400, "VAL_001"), "{member} stays as it is");
        }
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
            let refused = clinic.admin.send_text("POST", "users", None, Some(text)).await;
            assert_eq!(refused.refusal(), (400, code, member), "{text}");
        }
        let after = (clinic.viewer.all("users").await, clinic.viewer.all("documents").await);
        assert_eq!(before, after, "what is refused leaves nothing behind");
    })
    .await;
}

async fn values_may_go_as_far_as_is_said(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let owner = clinic.user("owner@example.org").await;
        let body = json!({"email": "edge@example.org", "full_name": long(255), "external_idp_id": long(255)});
        assert_eq!(clinic.admin.make("users", &body).await["full_name"], long(255));
        for size in [0, i64::MAX] {
            let mut body = a_document(&owner["id"]);
            body["filename"] = json!(long(255));
            body["size_bytes"] = json!(size);
            assert_eq!(clinic.admin.make("documents", &body).await["size_bytes"], size);
        }
    })
    .await;
}

async fn what_is_wrong_with_a_query_is_named(database: Database) {
    with_clinic(database, async |_, _, clinic| {
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
    })
    .await;
}

async fn null_clears_and_what_is_left_out_stays(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let body =
            json!({"email": "ada@example.org", "external_idp_id": "idp|ada", "full_name": "Ada", "role": "viewer"});
        let made = clinic.admin.make("users", &body).await;
        let path = at("users", &made);
        let steps = [
            (json!({"full_name": null}), json!({"full_name": null})),
            (json!({"role": "member"}), json!({"full_name": null, "role": "member"})),
            (json!({"external_idp_id": null}), json!({"full_name": null, "role": "member", "external_idp_id": null})),
            (json!({}), json!({"full_name": null, "role": "member", "external_idp_id": null})),
        ];
        for (changes, expected) in steps {
            let changed = clinic.admin.patch(&path, &changes).await;
            assert_eq!(with(&changed.body, &json!({})), with(&made, &expected), "{changes}");
            assert_eq!(clinic.viewer.get(&path).await.body, changed.body);
        }
        let without = clinic.admin.make("users", &json!({"email": "bob@example.org", "full_name": null})).await;
        assert_eq!((&without["full_name"], &without["role"]), (&Value::Null, &json!("member")));

        let document = clinic.document(&made["id"]).await;
        assert_eq!((&document["status"], &document["metadata"]), (&json!("processing"), &json!({})));
        let path = at("documents", &document);
        let one = clinic.admin.patch(&path, &json!({"metadata": {"a": 1}})).await;
        let two = clinic.admin.patch(&path, &json!({"metadata": {"b": 2}, "size_bytes": 0})).await;
        assert_eq!(with(&two.body, &json!({})), with(&one.body, &json!({"metadata": {"b": 2}, "size_bytes": 0})));
    })
    .await;
}

async fn every_change_has_a_later_time_and_an_etag_of_its_own(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let user = clinic.user("ada@example.org").await;
        let document = clinic.document(&user["id"]).await;
        let paths = [
            (at("users", &user), "full_name"),
            (at("documents", &document), "filename"),
            ("tenant".to_owned(), "name"),
        ];
        for (path, member) in paths {
            let first = clinic.viewer.get(&path).await;
            let mut tags = HashSet::from([first.etag().to_owned()]);
            let mut last = moment(&first.body, "updated_at");
            // The same again is a change, too.
            for turn in 0..60 {
                let changed = clinic.admin.patch(&path, &json!({member: format!("{}", turn / 2)})).await;
                let at = moment(&changed.body, "updated_at");
                assert!(at > last, "{path}: {at} after {last}");
                assert!(tags.insert(changed.etag().to_owned()), "{path}: {} comes twice", changed.etag());
                assert_eq!(changed.body["created_at"], first.body["created_at"], "{path}");
                last = at;
            }
            let now = clinic.viewer.get(&path).await;
            assert_eq!(moment(&now.body, "updated_at"), last);
        }
    })
    .await;
}

async fn pages_hold_every_row_once_newest_first_while_others_come_and_go(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        // At once, so that some have the same time.
        let body = a_document(&owner);
        let made = join_all((0..60).map(|_| clinic.member.make("documents", &body))).await;
        let mut expected: HashSet<String> = ids(&made).into_iter().map(str::to_owned).collect();
        let (mut seen, mut cursor) = (Vec::new(), Value::Null);
        let mut pages = 0;
        loop {
            let answer = clinic.viewer.get(&page("documents", 7, &cursor)).await;
            seen.extend(answer.items().iter().cloned());
            cursor = answer.body["next_cursor"].clone();
            pages += 1;
            if cursor.is_null() {
                break;
            }
            assert_eq!(answer.items().len(), 7);
            // A new one, another gone that is still to come, and, after every other page, its last one, where the next
            // page begins.
            clinic.member.make("documents", &body).await;
            let last = seen.last().unwrap()["id"].as_str().unwrap().to_owned();
            let seen_ids = ids(&seen);
            let to_come = expected.iter().find(|id| !seen_ids.contains(&id.as_str())).cloned();
            for gone in [Some(last).filter(|_| pages % 2 == 0), to_come.clone()].into_iter().flatten() {
                assert_eq!(clinic.member.delete(&format!("documents/{gone}")).await.status, 204);
            }
            if let Some(gone) = to_come {
                expected.remove(&gone);
            }
        }
        assert!(pages > 5, "{pages}");
        let visited: HashSet<String> = ids(&seen).into_iter().map(str::to_owned).collect();
        assert_eq!(visited.len(), seen.len(), "no row comes twice");
        assert_eq!(visited, expected, "no row is left out");
        let place = |row: &Value| (moment(row, "created_at"), row["id"].as_str().unwrap().to_owned());
        assert!(seen.is_sorted_by(|one, next| place(one) > place(next)), "newest first");
    })
    .await;
}

async fn a_page_has_1_to_200_rows(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        assert_eq!(clinic.viewer.get("documents").await.body, json!({"items": [], "next_cursor": null}));
        let body = a_document(&owner);
        for _ in 0..8 {
            join_all((0..25).map(|_| clinic.member.make("documents", &body))).await;
        }
        let asked = async |limit: usize| clinic.viewer.get(&page("documents", limit, &Value::Null)).await;
        for limit in [1, 2, 199] {
            let answer = asked(limit).await;
            assert_eq!((answer.items().len(), answer.body["next_cursor"].is_null()), (limit, false), "{limit}");
        }
        let answer = asked(200).await;
        assert_eq!(
            (answer.items().len(), answer.body["next_cursor"].is_null()),
            (200, true),
            "all, and no page behind"
        );
        assert_eq!(clinic.viewer.get("documents").await.items().len(), 50, "where nobody says");
        clinic.member.make("documents", &body).await;
        let answer = asked(200).await;
        assert_eq!((answer.items().len(), answer.body["next_cursor"].is_null()), (200, false));
        let rest = clinic.viewer.get(&page("documents", 200, &answer.body["next_cursor"])).await;
        assert_eq!((rest.items().len(), rest.body["next_cursor"].is_null()), (1, true));
    })
    .await;
}

async fn filters_narrow_a_list(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let (ada, bob) = (clinic.user("ada@example.org").await, clinic.user("bob@example.org").await);
        let cleo = clinic.admin.make("users", &json!({"email": "cleo@example.org", "role": "admin"})).await;
        let mut made: HashMap<(String, String), Vec<String>> = HashMap::new();
        for (owner, statuses) in [(&ada, &["processing", "failed", "failed"][..]), (&bob, &["failed", "completed"])] {
            for status in statuses {
                let mut body = a_document(&owner["id"]);
                body["status"] = json!(status);
                let id = clinic.member.make("documents", &body).await["id"].as_str().unwrap().to_owned();
                let owner = owner["id"].as_str().unwrap().to_owned();
                made.entry(((*status).to_owned(), owner)).or_default().insert(0, id);
            }
        }
        let owners: Vec<&str> = ids(&[ada.clone(), bob, cleo.clone()])
            .into_iter()
            .map(|id| Box::leak(id.to_owned().into_boxed_str()) as &str)
            .collect();
        for status in ["processing", "completed", "failed"] {
            for owner in &owners {
                let found = clinic.viewer.all(&format!("documents?status={status}&user_id={owner}")).await;
                let expected = made.get(&(status.to_owned(), (*owner).to_owned())).cloned().unwrap_or_default();
                assert_eq!(ids(&found), expected, "{status} of {owner}");
            }
            let found = clinic.viewer.all(&format!("documents?status={status}")).await;
            let expected: usize = made.iter().filter(|((it, _), _)| it == status).map(|(_, ids)| ids.len()).sum();
            assert_eq!(found.len(), expected);
            assert!(found.iter().all(|row| row["status"] == status));
        }
        for owner in &owners {
            let found = clinic.viewer.all(&format!("documents?user_id={owner}")).await;
            let expected: usize = made.iter().filter(|((_, it), _)| it == owner).map(|(_, ids)| ids.len()).sum();
            assert_eq!(found.len(), expected);
        }
        assert_eq!(ids(&clinic.viewer.all("users?role=admin").await), ids(&[cleo]));
        assert_eq!(clinic.viewer.all("users?role=member").await.len(), 2);
        assert!(clinic.viewer.all("users?role=viewer").await.is_empty());
        // A filter holds from page to page.
        let first = clinic.viewer.get(&page("documents?status=failed", 2, &Value::Null)).await;
        let second = clinic.viewer.get(&page("documents?status=failed", 2, &first.body["next_cursor"])).await;
        assert_eq!((first.items().len(), second.items().len()), (2, 1));
        assert!(second.items().iter().all(|row| row["status"] == "failed"));
        assert!(clinic.viewer.all(&format!("documents?user_id={}", Uuid::now_v7())).await.is_empty());
        assert_eq!(ada["role"], "member");
    })
    .await;
}

async fn a_document_lies_under_its_tenant(database: Database) {
    with_clinic(database, async |world, _, clinic| {
        const CLASH: (u16, &str, &str) = (409, "RES_002", "storage_key");
        let owner = clinic.user("owner@example.org").await["id"].clone();
        let tenant = clinic.id;
        let document = clinic.document(&owner).await;
        assert_eq!(document["storage_key"], format!("{tenant}/{}", document["id"].as_str().unwrap()));
        let at_key = |key: &str| {
            let mut body = a_document(&owner);
            body["storage_key"] = json!(key);
            body
        };
        let other = world.tenant;
        let simple = tenant.simple();
        let refused = [
            format!("{other}/scan.pdf"),
            "scan.pdf".to_owned(),
            format!("{tenant}"),
            format!("{tenant}/"),
            format!("/{tenant}/scan.pdf"),
            format!("{simple}/scan.pdf"),
            format!("{}/scan.pdf", tenant.to_string().to_uppercase()),
            format!("x{tenant}/scan.pdf"),
            format!("{tenant}/../{other}/scan.pdf"),
            format!("{tenant}/a/.."),
            format!("{tenant}/./scan.pdf"),
            format!("{tenant}//scan.pdf"),
            format!("{tenant}/{}", long(1024)),
            format!("{tenant}/a\u{0}b"),
        ];
        for key in refused {
            let answer = clinic.member.post("documents", &at_key(&key)).await;
            assert_eq!(answer.refusal(), (400, "VAL_001", "storage_key"), "{key:?}");
        }
        let key = format!("{tenant}/scans/..2026/{}", long(1024 - 36 - 1 - 6 - 7));
        let made = clinic.member.make("documents", &at_key(&key)).await;
        assert_eq!(made["storage_key"], key);
        assert_eq!(clinic.member.post("documents", &at_key(&key)).await.refusal(), CLASH, "one file, one row");
        let mut elsewhere = at_key(&key);
        elsewhere["bucket"] = json!("another");
        clinic.member.make("documents", &elsewhere).await;
        assert_eq!(clinic.member.delete(&at("documents", &made)).await.status, 204);
        clinic.member.make("documents", &at_key(&key)).await;
        assert_eq!(clinic.member.restore(&at("documents", &made)).await.refusal(), CLASH);
    })
    .await;
}

async fn a_document_belongs_to_a_live_user(database: Database) {
    with_clinic(database, async |world, server, clinic| {
        let body = json!({"email": "ada@example.org", "external_idp_id": "provider|ada", "role": "viewer"});
        let ada = clinic.admin.make("users", &body).await;
        let caller = crate::clinic::Caller::new(world, server, &clinic.external_id, "provider|ada", "member");
        let mut body = a_document(&ada["id"]);
        body.as_object_mut().unwrap().remove("user_id");
        let made = caller.make("documents", &body).await;
        assert_eq!(made["user_id"], ada["id"], "the caller's, where nobody says whose");

        let gone = clinic.user("gone@example.org").await;
        assert_eq!(clinic.admin.delete(&at("users", &gone)).await.status, 204);
        for owner in [&gone["id"], &json!(Uuid::now_v7())] {
            let answer = clinic.member.post("documents", &a_document(owner)).await;
            assert_eq!(answer.refusal(), (404, "RES_001", "user_id"));
            let answer = clinic.member.patch(&at("documents", &made), &json!({"user_id": owner})).await;
            assert_eq!(answer.refusal(), (404, "RES_001", "user_id"));
        }
        assert_eq!(clinic.viewer.get(&at("documents", &made)).await.body, made);
        // Who is deleted leaves documents behind, which are still there to be read and given away.
        assert_eq!(clinic.admin.delete(&at("users", &ada)).await.status, 204);
        assert_eq!(clinic.viewer.get(&at("documents", &made)).await.body, made);
        let bob = clinic.user("bob@example.org").await;
        let given = clinic.member.patch(&at("documents", &made), &json!({"user_id": bob["id"]})).await;
        assert_eq!((given.status, &given.body["user_id"]), (200, &bob["id"]));
    })
    .await;
}

async fn metadata_comes_back_as_it_went_in(database: Database) {
    with_clinic(database, async |_, _, clinic| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        let send = async |metadata: &str| {
            let text = a_document(&owner).to_string().replacen('{', &format!("{{\"metadata\":{metadata},"), 1);
            clinic.member.send_text("POST", "documents", None, Some(&text)).await
        };
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let good = [
            "{}".to_owned(),
            r#"{"z": 1, "a": [null, true, "x", {"": ""}]}"#.to_owned(),
            r#"{"most": 9007199254740991, "least": -9007199254740991, "large": 1e308, "small": 5e-324, "third": 0.3333333333333333, "one": 1.0}"#.to_owned(),
            r#"{"no U+0000": "\\u0000", "\\u0000": 1, "pair": "\ud83e\ude7a", "line": "\u2028"}"#.to_owned(),
            nested(32),
        ];
        for metadata in &good {
            let made = send(metadata).await;
            assert_eq!(made.status, 201, "{metadata}: {}", made.body);
            let expected: Value = serde_json::from_str(metadata).unwrap();
            let read = clinic.viewer.get(&at("documents", &made.body)).await;
            assert_eq!((&made.body["metadata"], &read.body["metadata"]), (&expected, &expected));
        }
        for metadata in
            [r#"{"a": "\u0000"}"#, r#"{"\u0000": 1}"#, r#"{"a": [{"b": "x\u0000y"}]}"#, r#"{"a": "\\\u0000"}"#]
        {
            assert_eq!(send(metadata).await.refusal(), (400, "VAL_001", "metadata"), "{metadata}");
        }
        for metadata in [r#"{"a": NaN}"#, r#"{"a": "\ud800"}"#] {
            assert_eq!(send(metadata).await.refusal(), (400, "VAL_003", "metadata"), "{metadata}");
        }
    })
    .await;
}

async fn a_suspended_tenant_is_refused_everywhere(database: Database) {
    with_clinic(database, async |world, _, clinic| {
        let user = clinic.user("ada@example.org").await;
        let document = clinic.document(&user["id"]).await;
        let connection = world.database.connect().await;
        let set = async |status: &str| {
            let sql = format!("UPDATE tenants SET status = '{status}' WHERE external_id = '{}'", clinic.external_id);
            connection.execute_unprepared(&sql).await.unwrap();
        };
        let paths = ["tenant", "users", "documents", "audit-logs", &at("users", &user), &at("documents", &document)];
        set("suspended").await;
        for path in paths {
            for method in ["GET", "PATCH", "POST", "DELETE"] {
                let answer = clinic.admin.send(method, path, None, Some(&json!({}))).await;
                assert!(
                    matches!(answer.outcome(), (403, "AUTH_009") | (405, "RES_004")),
                    "{method} {path}: {}",
                    answer.body
                );
                assert!(method != "GET" || answer.status == 403, "{path}");
            }
        }
        set("trial").await;
        for path in paths {
            assert_eq!(clinic.admin.get(path).await.status, 200, "{path}");
        }
        connection.close().await.unwrap();
    })
    .await;
}
