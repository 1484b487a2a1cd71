//! What every resource has in common: a row is created, read, changed, deleted and restored, and a change may name the version
//! that it changes.

use crate::support::{SAMPLES, TestTenant, at, ids};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::HashSet;
use test_support::{Database, on_migrated_databases};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

on_migrated_databases!(
    created_row_is_read_changed_deleted_restored,
    null_clears_and_absence_keeps,
    null_is_refused_where_it_may_not_be,
    stale_version_is_refused,
    one_of_concurrent_changes_wins,
    each_change_has_a_new_time_and_etag
);

/// The time of a member.
pub(crate) fn moment(row: &Value, member: &str) -> OffsetDateTime {
    OffsetDateTime::parse(row[member].as_str().unwrap(), &Rfc3339).unwrap()
}

/// `row` with these members in place of its own, and no time of its last change.
pub(crate) fn with(row: &Value, changes: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row["updated_at"].take();
    row
}

async fn created_row_is_read_changed_deleted_restored(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    // The last admin could not be deleted.
    let admin = json!({"email": "admin@example.org", "external_idp_id": "idp|admin", "role": "admin"});
    clinic.admin.make("users", &admin).await;
    for sample in SAMPLES {
        let (kind, body, change) = (&*sample.path(), (sample.new)(&owner), (sample.changes)());
        let made = clinic.admin.post(kind, &body).await;
        made.assert_status(201);
        assert_eq!(with(&made.body, &body), with(&made.body, &json!({})), "{kind}: what was sent is there");
        assert_eq!(made.body["created_at"], made.body["updated_at"]);
        let path = at(kind, &made.body);
        assert_eq!(made.header("location"), format!("/api/v1/{path}"));
        let read = clinic.viewer.get(&path).await;
        assert_eq!((read.status, &read.body, read.etag()), (200, &made.body, made.etag()));
        assert!(ids(&clinic.viewer.all(kind).await).contains(&made.body["id"].as_str().unwrap()));

        let changed = clinic.admin.patch(&path, &change).await;
        changed.assert_status(200);
        assert_eq!(with(&changed.body, &json!({})), with(&made.body, &change), "{kind}: nothing else has changed");
        let read = clinic.viewer.get(&path).await;
        assert_eq!((&read.body, read.etag()), (&changed.body, changed.etag()));

        let deleted = clinic.admin.delete(&path).await;
        assert_eq!((deleted.status, &deleted.body), (204, &Value::Null));
        for gone in
            [clinic.viewer.get(&path).await, clinic.admin.patch(&path, &change).await, clinic.admin.delete(&path).await]
        {
            assert_eq!(gone.outcome(), (404, "RES_001"), "{kind}");
        }
        assert!(!ids(&clinic.viewer.all(kind).await).contains(&made.body["id"].as_str().unwrap()));

        let restored = clinic.admin.restore(&path).await;
        restored.assert_status(200);
        assert_eq!(with(&restored.body, &json!({})), with(&changed.body, &json!({})), "{kind}: as it was");
        let again = clinic.admin.restore(&path).await;
        assert_eq!((again.status, &again.body, again.etag()), (200, &restored.body, restored.etag()));
        assert_eq!(clinic.viewer.get(&path).await.body, restored.body);
    }
}

async fn null_clears_and_absence_keeps(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let body = json!({"email": "ada@example.org", "external_idp_id": "idp|ada", "full_name": "Ada", "role": "viewer"});
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
}

async fn null_is_refused_where_it_may_not_be(database: Database) {
    let (_app, clinic, user, document) = TestTenant::with_rows(database).await;
    let cases = [
        (at("users", &user), &["email", "role"][..]),
        (at("documents", &document), &["user_id", "filename", "content_type", "size_bytes", "status", "metadata"]),
        ("tenant".to_owned(), &["name"]),
    ];
    for (path, members) in cases {
        let before = clinic.admin.get(&path).await.body;
        for member in members {
            let refused = clinic.admin.patch(&path, &json!({*member: null})).await;
            // A word that is none is of the wrong format, as elsewhere.
            let code = if ["role", "status"].contains(member) { "VAL_003" } else { "VAL_001" };
            assert_eq!(refused.refusal(), (400, code, *member), "{path}: {}", refused.body);
        }
        assert_eq!(clinic.admin.get(&path).await.body, before, "{path}");
    }
}

async fn stale_version_is_refused(database: Database) {
    let (_app, clinic, user, document) = TestTenant::with_rows(database).await;
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
            change(now.etag(), "lost").await.assert_error(404, "RES_001");
            change("*", "lost").await.assert_error(404, "RES_001");
            let restored = clinic.admin.restore(&path).await;
            assert_ne!(restored.etag(), now.etag(), "a version from before the deletion is an old one");
        }
    }
}

async fn one_of_concurrent_changes_wins(database: Database) {
    let (_app, clinic, user, document) = TestTenant::with_rows(database).await;
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
}

async fn each_change_has_a_new_time_and_etag(database: Database) {
    let (_app, clinic, user, document) = TestTenant::with_rows(database).await;
    let paths =
        [(at("users", &user), "full_name"), (at("documents", &document), "filename"), ("tenant".to_owned(), "name")];
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
}
