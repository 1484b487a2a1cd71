//! Who saw this, when, and what was changed to what: questions that the log answers.

use super::operations::make;
use crate::support::{AuditedTenant, BEGINNING, TestClient, chain, page};
use bulkhead::audit::AuditEntry;
use bulkhead::entity::audit_log::Model;
use serde_json::{Value, json};
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    role_and_status_changes_name_both_values,
    who_saw_a_row_in_a_list_is_found_by_the_row,
    an_entry_of_200_rows_is_small_and_names_them_all,
    older_list_entries_are_found,
    entry_names_the_ids_that_its_list_showed,
    a_long_log_is_looked_through_in_steps_to_its_end,
    entries_are_found_between_two_times
);

async fn get(client: &TestClient, path: &str) -> Value {
    let answer = client.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

/// All entries that a search finds, page by page, and how many pages there are.
async fn search(client: &TestClient, query: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut found, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let body = get(client, &page(&format!("audit-logs?{query}"), limit, &cursor)).await;
        found.extend(body["items"].as_array().unwrap().iter().cloned());
        (cursor, pages) = (body["next_cursor"].clone(), pages + 1);
        if cursor.is_null() {
            return (found, pages);
        }
    }
}

fn numbers(entries: &[Value]) -> Vec<i64> {
    entries.iter().map(|entry| entry["sequence"].as_i64().unwrap()).collect()
}

async fn role_and_status_changes_name_both_values(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let (user, document) = (make(&clinic, &admin, "users").await, make(&clinic, &admin, "documents").await);
    for (path, body, metadata) in [
        (
            format!("users/{user}"),
            json!({"role": "admin", "full_name": "Grace Secret"}),
            json!({"fields": ["full_name", "role"], "role": {"from": "viewer", "to": "admin"}}),
        ),
        (
            format!("users/{user}"),
            json!({"role": "viewer"}),
            json!({"fields": ["role"], "role": {"from": "admin", "to": "viewer"}}),
        ),
        (format!("users/{user}"), json!({"full_name": "G"}), json!({"fields": ["full_name"]})),
        (
            format!("documents/{document}"),
            json!({"status": "completed", "filename": "secret.pdf"}),
            json!({"fields": ["filename", "status"], "status": {"from": "failed", "to": "completed"}}),
        ),
    ] {
        let answer = admin.patch(&path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let newest = clinic.newest().await;
        assert_eq!((newest.action.as_str(), newest.metadata), ("UPDATED", metadata), "{path}");
    }
    let nobody = admin.patch(&format!("users/{}", Uuid::now_v7()), &json!({"role": "admin"})).await;
    nobody.assert_error(404, "RES_001");
    clinic.must(&["audit", "verify"]).await;
}

async fn who_saw_a_row_in_a_list_is_found_by_the_row(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let viewer = clinic.caller(clinic.own(), "mallory", "viewer");
    let document = make(&clinic, &admin, "documents").await;
    let other = make(&clinic, &admin, "documents").await;
    let seen = async |path: &str| {
        get(&viewer, path).await;
        clinic.log().await.last().unwrap().sequence
    };
    let both = seen("documents").await;
    seen("documents?limit=1").await; // the other one alone
    seen("documents?status=completed").await; // none
    seen("users").await;
    let one = seen(&format!("documents/{document}")).await;
    let again = seen("documents").await;
    let query = format!("resource_type=documents&resource_id={document}");
    let created = clinic.log().await.iter().find(|entry| entry.resource_id == Some(document)).unwrap().sequence;
    for limit in [1, 2, 50] {
        let (found, _) = search(&admin, &query, limit).await;
        assert_eq!(numbers(&found), [again, one, both, created], "{limit} at once");
        assert_eq!(found[0]["metadata"]["subject"], "mallory");
        assert_eq!((&found[0]["resource_id"], &found[0]["metadata"]["count"]), (&Value::Null, &json!(2)));
    }
    let (found, _) = search(&admin, &format!("{query}&action=CREATED"), 50).await;
    assert_eq!(numbers(&found), [created]);
    let ada = clinic.ada;
    let (found, _) = search(&admin, &format!("{query}&user_id={ada}"), 50).await;
    assert_eq!(numbers(&found), [created], "the viewer has no user");
    // Of users, from the command line, too; deleted or not.
    clinic.must(&["user", "list", "--tenant", "clinic"]).await;
    let listed = clinic.log().await.last().unwrap().sequence;
    let (found, _) = search(&admin, &format!("resource_type=users&resource_id={ada}"), 50).await;
    assert_eq!(numbers(&found)[0], listed);
    admin.delete(&format!("documents/{other}")).await.assert_status(204);
    let (found, _) = search(&admin, &format!("resource_type=documents&resource_id={other}"), 50).await;
    assert_eq!(found.len(), 5, "made, three lists, deleted: {found:#?}");
    clinic.must(&["audit", "verify"]).await;
}

async fn an_entry_of_200_rows_is_small_and_names_them_all(database: Database) {
    // A program's name of this length is kept.
    const LONGEST: usize = 256;
    let (clinic, admin) = AuditedTenant::start(database).await;
    let owner = clinic.ada;
    let rows: Vec<String> = (0..201)
        .map(|_| {
            let (id, tenant, owner) =
                (clinic.literal(Uuid::now_v7()), clinic.literal(clinic.tenant), clinic.literal(owner));
            let key = format!("{}/{}", clinic.tenant, Uuid::now_v7());
            format!("({id}, {tenant}, {owner}, '{key}', 'files', 'scan.pdf', 'application/pdf', 7)")
        })
        .collect();
    let columns = "id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes";
    clinic.execute(&format!("INSERT INTO documents ({columns}) VALUES {}", rows.join(", "))).await;
    let request = admin.request("GET", "documents?limit=200").header("user-agent", "x".repeat(LONGEST));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let shown = answer["items"].as_array().unwrap();
    let entry = clinic.newest().await;
    assert_eq!((shown.len(), entry.metadata["count"].as_i64()), (200, Some(200)));
    if clinic.on_postgres() {
        let sql = format!("SELECT pg_column_size(audit_logs.*) FROM audit_logs WHERE id = '{}'", entry.id);
        let bytes: i32 = clinic.value(&sql).await;
        assert!(bytes <= 2048, "{bytes} bytes");
    }
    for at in [0, 99, 199] {
        let query = format!("resource_type=documents&resource_id={}", shown[at]["id"].as_str().unwrap());
        let (found, _) = search(&admin, &query, 50).await;
        assert_eq!(numbers(&found), [entry.sequence], "row {at}");
    }
    clinic.must(&["audit", "verify"]).await;
}

async fn entry_names_the_ids_that_its_list_showed(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let mut documents = Vec::new();
    for _ in 0..5 {
        documents.push(make(&clinic, &admin, "documents").await);
    }
    documents.reverse();
    let first = get(&admin, "documents?limit=3").await;
    let list = clinic.newest().await;
    let cursor = first["next_cursor"].as_str().unwrap();
    get(&admin, &format!("documents?limit=3&cursor={cursor}")).await;
    let rest = clinic.newest().await;
    get(&admin, "documents?status=completed").await;
    let none = clinic.newest().await;
    get(&admin, &format!("documents/{}", documents[0])).await;
    let one = clinic.newest().await;
    let users = get(&admin, "users").await;
    let people = clinic.newest().await;
    // What is deleted later was shown all the same.
    admin.delete(&format!("documents/{}", documents[1])).await.assert_status(204);
    let strange = Uuid::now_v7();
    put(&clinic, &[json!({"ids": [documents[4], strange]})]).await;
    let old = clinic.newest().await;
    for (entry, ids) in [
        (&list, json!(documents[..3])),
        (&rest, json!(documents[3..])),
        (&none, json!([])),
        (&one, Value::Null),
        (&people, json!([users["items"][0]["id"]])),
        (&old, json!([documents[4], strange])),
    ] {
        let before = clinic.log().await.len();
        let body = get(&admin, &format!("audit-logs/{}", entry.id)).await;
        assert_eq!((&body["sequence"], &body["resource_ids"]), (&json!(entry.sequence), &ids), "{body}");
        assert_eq!(body["hash"], json!(entry.hash));
        let recorded = clinic.log().await.split_off(before);
        let said = |entry: &Model| {
            (entry.action.clone(), entry.resource_type.clone(), entry.resource_id, entry.metadata.clone())
        };
        let looked = ("DATA_ACCESS".to_owned(), "audit_logs".to_owned(), Some(entry.id.into()), json!({"found": true}));
        assert_eq!(recorded.iter().map(said).collect::<Vec<_>>(), [looked]);
    }
    // Another tenant's entry is none.
    let other = clinic.make_tenant("other").await;
    let theirs = chain(&clinic.owner, other).await.pop().unwrap().id;
    let refused = admin.get(&format!("audit-logs/{theirs}")).await;
    refused.assert_error(404, "RES_001");
}

/// Entries of lists, with these members; they are put behind the chain's end.
async fn put(clinic: &AuditedTenant, metadata: &[Value]) -> Vec<i64> {
    let last = clinic.newest().await;
    let mut at = (last.sequence, last.hash);
    let mut numbers = Vec::new();
    for members in metadata {
        let (insert, _) = clinic.made_up(clinic.tenant, (at.0, &at.1), 1, |entry| {
            entry.resource_id = None;
            entry.metadata = members.clone();
        });
        clinic.execute(&insert).await;
        let last = clinic.newest().await;
        at = (last.sequence, last.hash);
        numbers.push(at.0);
    }
    numbers
}

async fn older_list_entries_are_found(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    // Its last six bytes are 33 44 55 66 77 88.
    let id: Uuid = "0193b7a6-7c1e-7d4c-9f1b-334455667788".parse().unwrap();
    let numbers_put = put(
        &clinic,
        &[
            json!({"ids": [Uuid::now_v7(), id]}),
            json!({"count": 1, "id_ends": "M0RVZne"}),
            json!({"count": 2, "id_ends": "AAEM0RVZneAAAA"}), // across two
            json!({"count": 1, "id_ends": "m0rvzNE"}),        // in other letters
            json!({"ids": [Uuid::now_v7()]}),
        ],
    )
    .await;
    let query = format!("resource_type=documents&resource_id={id}");
    for limit in [1, 50] {
        let (found, _) = search(&admin, &query, limit).await;
        assert_eq!(numbers(&found), [numbers_put[1], numbers_put[0]], "{limit} at once");
    }
    let (found, _) = search(&admin, &format!("resource_type=users&resource_id={id}"), 50).await;
    assert_eq!(numbers(&found), [0_i64; 0], "a document is no user");
}

/// A tenant's log of 21,000 entries, all of them of lists of 200; only the first list showed the thing.
async fn a_long_log_is_looked_through_in_steps_to_its_end(database: Database) {
    const ENTRIES: i64 = 21_000;
    let clinic = AuditedTenant::new(database).await;
    let tenant = Uuid::now_v7();
    let literal = clinic.literal(tenant);
    let sql = format!("INSERT INTO tenants (id, name, external_id) VALUES ({literal}, 'A', 'long')");
    clinic.execute(&sql).await;
    let id: Uuid = "0193b7a6-7c1e-7d4c-9f1b-334455667788".parse().unwrap();
    let (beginning, full) = ((BEGINNING.0, BEGINNING.1.to_owned()), "A".repeat(1400));
    let lists = |entry: &mut AuditEntry| {
        entry.resource_id = None;
        let ends = if entry.sequence == 1 { "M0RVZne" } else { &full };
        entry.metadata = json!({"count": 200, "id_ends": ends});
    };
    clinic.fill(tenant, beginning, ENTRIES, lists).await;
    let server = clinic.serve().await;
    let admin = TestClient::new(&clinic, &server, "long", "ada", "admin");
    let query = format!("resource_type=documents&resource_id={id}");
    for query in [query.clone(), format!("{query}&since=2020-01-01T00:00:00Z")] {
        let (found, pages) = search(&admin, &query, 50).await;
        assert_eq!((numbers(&found), pages), (vec![1], 2), "{query}");
        let body = get(&admin, &format!("audit-logs?{query}")).await;
        assert_eq!(body["items"], json!([]), "{query}: a page may be empty");
        assert!(body["next_cursor"].is_string(), "{query}: and not be the last");
    }
}

async fn entries_are_found_between_two_times(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    for _ in 0..6 {
        make(&clinic, &admin, "documents").await;
    }
    let entries = clinic.log().await;
    let at = |number: usize| {
        let at = AuditEntry::from_row(entries[number - 1].clone()).0.created_at;
        at.replace(':', "%3A")
    };
    let find = async |query: &str, limit| numbers(&search(&admin, query, limit).await.0);
    for limit in [1, 2, 50] {
        let query = format!("since={}&until={}", at(4), at(6));
        assert_eq!(find(&query, limit).await, [5, 4], "from the first time on, before the last");
        assert_eq!(find(&format!("until={}", at(3)), limit).await, [2, 1]);
        assert_eq!(find(&format!("action=CREATED&since={}&until={}", at(4), at(6)), limit).await, [5, 4]);
        assert_eq!(find(&format!("action=UPDATED&until={}", at(6)), limit).await, [0_i64; 0]);
        let document = entries[4].resource_id.unwrap();
        let query = format!("resource_type=documents&resource_id={document}");
        assert_eq!(find(&format!("{query}&until={}", at(6)), limit).await, [5]);
        assert_eq!(find(&format!("{query}&until={}", at(5)), limit).await, [0_i64; 0]);
    }
    // A clock was set back: an entry behind others has an earlier time than theirs.
    let id = clinic.literal(clinic.tenant);
    let back = "UPDATE audit_logs SET created_at = '2020-01-01T00:00:00.000000Z'";
    clinic.tamper(&format!("{back} WHERE tenant_id = {id} AND sequence = 7")).await;
    for limit in [1, 2, 50] {
        assert_eq!(find(&format!("until={}", at(3)), limit).await, [2, 1, 7]);
        assert_eq!(find("until=2020-01-01T00:00:01Z", limit).await, [7]);
    }
    // With an offset, and finer than the log: what is later than the entry finds it no more.
    assert_eq!(find("since=9999-12-31T23:59:59Z", 50).await, [0_i64; 0]);
    let same = at(4).replace('Z', "%2B00:00");
    assert_eq!(find(&format!("since={same}&until={}", at(5)), 50).await, [4]);
    let finer = at(4).replace('Z', "001Z");
    assert_eq!(find(&format!("since={finer}&until={}", at(6)), 50).await, [5]);
    assert_eq!(find(&format!("since={}&until={}", at(5), at(5)), 50).await, [0_i64; 0]);
    for (query, code, field) in [
        ("since=yesterday", "VAL_003", "since"),
        ("until=2026-11-24", "VAL_003", "until"),
        ("until=", "VAL_003", "until"),
        ("since=9999-12-31T23:59:59-23:59", "VAL_003", "since"),
        ("since=2026-11-25T00:00:00Z&until=2026-11-24T00:00:00Z", "VAL_001", "since"),
        ("since=2026-11-25T00:00:00Z&cursor=99999999", "VAL_003", "cursor"),
    ] {
        let refused = admin.get(&format!("audit-logs?{query}")).await;
        assert_eq!(refused.refusal(), (400, code, field), "{query}");
    }
}
