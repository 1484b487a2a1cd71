//! Lists: their pages, their order and their filters.

use crate::changes::moment;
use crate::support::{TestTenant, ids, new_document, page};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(pages_hold_each_row_once_newest_first, page_has_1_to_200_rows, filters_narrow_a_list);

async fn pages_hold_each_row_once_newest_first(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    // At once, so that some have the same time.
    let body = new_document(&owner);
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
            clinic.member.delete(&format!("documents/{gone}")).await.assert_status(204);
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
}

async fn page_has_1_to_200_rows(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    assert_eq!(clinic.viewer.get("documents").await.body, json!({"items": [], "next_cursor": null}));
    let body = new_document(&owner);
    for _ in 0..8 {
        join_all((0..25).map(|_| clinic.member.make("documents", &body))).await;
    }
    let asked = async |limit: usize| clinic.viewer.get(&page("documents", limit, &Value::Null)).await;
    for limit in [1, 2, 199] {
        let answer = asked(limit).await;
        assert_eq!((answer.items().len(), answer.body["next_cursor"].is_null()), (limit, false), "{limit}");
    }
    let answer = asked(200).await;
    assert_eq!((answer.items().len(), answer.body["next_cursor"].is_null()), (200, true), "all, and no page behind");
    assert_eq!(clinic.viewer.get("documents").await.items().len(), 50, "where nobody says");
    clinic.member.make("documents", &body).await;
    let answer = asked(200).await;
    assert_eq!((answer.items().len(), answer.body["next_cursor"].is_null()), (200, false));
    let rest = clinic.viewer.get(&page("documents", 200, &answer.body["next_cursor"])).await;
    assert_eq!((rest.items().len(), rest.body["next_cursor"].is_null()), (1, true));
}

async fn filters_narrow_a_list(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let (ada, bob) = (clinic.user("ada@example.org").await, clinic.user("bob@example.org").await);
    let cleo = clinic.admin.make("users", &json!({"email": "cleo@example.org", "role": "admin"})).await;
    let mut made: HashMap<(String, String), Vec<String>> = HashMap::new();
    for (owner, statuses) in [(&ada, &["processing", "failed", "failed"][..]), (&bob, &["failed", "completed"])] {
        for status in statuses {
            let mut body = new_document(&owner["id"]);
            body["status"] = json!(status);
            let id = clinic.member.make("documents", &body).await["id"].as_str().unwrap().to_owned();
            let owner = owner["id"].as_str().unwrap().to_owned();
            made.entry(((*status).to_owned(), owner)).or_default().insert(0, id);
        }
    }
    let all = [ada.clone(), bob, cleo.clone()];
    let owners = ids(&all);
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
}
