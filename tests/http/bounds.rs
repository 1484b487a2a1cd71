//! How large documents' metadata and the pages of lists may be, and what memory that takes, on both databases alike.

use crate::support::{Answer, TestApp, TestTenant, at, new_document, page};
use bulkhead::entity::JsonText;
use bulkhead::resources::documents as document;
use futures_util::future::join_all;
use sea_orm::ActiveValue::Set;
use sea_orm::{DatabaseConnection, EntityTrait};
use serde_json::{Value, json};
use std::collections::HashSet;
use test_support::provider::Shape;
use test_support::{Database, on_migrated_databases, skip};
use uuid::Uuid;

on_migrated_databases!(
    metadata_has_bounds_which_are_named,
    the_longest_metadata_is_a_setting,
    no_name_comes_twice_in_metadata,
    a_number_that_would_change_is_refused,
    a_page_ends_before_its_rows_are_too_long,
    oversized_old_rows_are_read_one_by_one,
    lists_of_large_documents_take_little_memory
);

/// A body with this text as metadata.
fn body(owner: &Value, metadata: &str) -> String {
    new_document(owner).to_string().replacen('{', &format!("{{\"metadata\":{metadata},"), 1)
}

/// Sends metadata with a new document, and as a change of one: both answers.
async fn send(clinic: &TestTenant, document: &Value, metadata: &str) -> [Answer; 2] {
    let path = at("documents", document);
    let change = format!("{{\"metadata\":{metadata}}}");
    [
        clinic.member.send_text("POST", "documents", None, Some(&body(&document["user_id"], metadata))).await,
        clinic.member.send_text("PATCH", &path, None, Some(&change)).await,
    ]
}

/// Both are refused for the metadata, and say why.
async fn refused(clinic: &TestTenant, document: &Value, metadata: &str, why: &str) {
    for answer in send(clinic, document, metadata).await {
        assert_eq!(answer.refusal(), (400, "VAL_001", "metadata"), "{metadata:.60}: {}", answer.body);
        let detail = answer.body["error"]["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{metadata:.60}: {detail}");
    }
}

/// Both are done, and what is read afterwards is what was sent.
async fn taken(clinic: &TestTenant, document: &Value, metadata: &str) {
    let expected: Value = serde_json::from_str(metadata).unwrap();
    for answer in send(clinic, document, metadata).await {
        assert!(answer.status < 300, "{metadata:.60}: {}", answer.body);
        let read = clinic.viewer.get(&at("documents", &answer.body)).await;
        assert_eq!((&answer.body["metadata"], &read.body["metadata"]), (&expected, &expected), "{metadata:.60}");
    }
}

async fn metadata_has_bounds_which_are_named(database: Database) {
    let (_app, clinic, _, document) = TestTenant::with_rows(database).await;
    let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let items = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count - 1].join(","));
    let members = |count: usize| {
        let members: Vec<String> = (0..count).map(|at| format!("\"{at}\":{{}}")).collect();
        format!("{{{}}}", members.join(","))
    };
    for good in [long(65_536), deep(32), items(1000), members(1000)] {
        taken(&clinic, &document, &good).await;
    }
    refused(&clinic, &document, &long(65_537), "more than 65536 bytes (MAX_METADATA_BYTES)").await;
    // Spaces are sent, too.
    refused(&clinic, &document, &format!("{{{}}}", " ".repeat(65_536)), "more than 65536 bytes").await;
    for depth in [33, 200, 10_000] {
        refused(&clinic, &document, &deep(depth), "more than 32 deep").await;
    }
    for many in [items(1001), members(1001), items(20_000)] {
        refused(&clinic, &document, &many, "more than 1000 members and items").await;
    }
    for other in ["[]", "1", "\"x\"", "true"] {
        refused(&clinic, &document, other, "it must be an object").await;
    }
}

async fn the_longest_metadata_is_a_setting(database: Database) {
    let (_app, clinic) = TestTenant::start_with(database, &[("MAX_METADATA_BYTES", "12")]).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let document = clinic.document(&owner).await;
    taken(&clinic, &document, r#"{"a":"1234"}"#).await;
    refused(&clinic, &document, r#"{"a":"12345"}"#, "more than 12 bytes").await;
}

async fn no_name_comes_twice_in_metadata(database: Database) {
    let (_app, clinic, _, document) = TestTenant::with_rows(database).await;
    taken(&clinic, &document, r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}], "A": 1}"#).await;
    for twice in [r#"{"a": 1, "a": 1}"#, r#"{"b": {"a": 1, "a": 2}}"#, r#"{"b": [[{"a": 1, "\u0061": 2}]]}"#] {
        refused(&clinic, &document, twice, "the name \"a\" comes twice").await;
    }
    // What the client calls its members is not taken for a field of the body.
    for name in ["missing field `filename`", "unknown field `x`"] {
        refused(&clinic, &document, &format!("{{\"{name}\": 1, \"{name}\": 2}}"), "comes twice").await;
    }
}

async fn a_number_that_would_change_is_refused(database: Database) {
    let (_app, clinic, _, document) = TestTenant::with_rows(database).await;
    let good = [
        "0",
        "-0.0",
        "0.1",
        "1e2",
        "1.0",
        "-2.50e-3",
        "0.3333333333333333",
        "9007199254740991",
        "-9007199254740991",
        "6.02214076e23",
        "1e308",
        "5e-324",
    ];
    for number in good {
        taken(&clinic, &document, &format!("{{\"a\":[{number}]}}")).await;
    }
    // What the database makes of it may be sent back.
    for answer in send(&clinic, &document, r#"{"a": 6.02214076e23, "b": 1e100}"#).await {
        let path = at("documents", &answer.body);
        let read = clinic.member.text(&path).await;
        let (_, metadata) = read.split_once("\"metadata\":").unwrap();
        let (members, _) = metadata.split_once('}').unwrap();
        taken(&clinic, &document, &format!("{members}}}")).await;
    }
    for number in [
        "9007199254740993",
        "18446744073709551615",
        "123456789012345678901234567890",
        "12345678901234567890.123456789",
        "3.141592653589793238462643383279",
        "1e-400",
        "1e400",
        "-1e400",
    ] {
        let why = format!("the number {number} would be changed");
        refused(&clinic, &document, &format!("{{\"a\":[{{\"b\":{number}}}]}}"), &why).await;
    }
}

async fn a_page_ends_before_its_rows_are_too_long(database: Database) {
    const MOST: usize = 2000;
    let (_app, clinic) = TestTenant::start_with(database, &[("MAX_PAGE_BYTES", "2000")]).await;
    let owner = clinic.user("user-0@example.org").await["id"].clone();
    for number in 1..15 {
        clinic.user(&format!("user-{number}@example.org")).await;
    }
    for number in 0..12 {
        // Some that fit many times, some twice, some not at all.
        let metadata = json!({"a": "x".repeat([10, 300, 600, 2500][number % 4])}).to_string();
        let made = clinic.member.send_text("POST", "documents", None, Some(&body(&owner, &metadata))).await;
        made.assert_status(201);
    }
    for list in ["documents", "users", "audit-logs"] {
        let (mut seen, mut lengths, mut cursor) = (Vec::new(), Vec::new(), Value::Null);
        // Each page of the log adds an entry, in front of where the next one begins.
        loop {
            let answer = clinic.admin.get(&page(list, 200, &cursor)).await;
            answer.assert_status(200);
            assert_eq!(answer.header("content-type"), "application/json");
            let bytes: usize = answer.items().iter().map(|row| row.to_string().len()).sum();
            assert!(bytes <= MOST || answer.items().len() == 1, "{list}: {bytes}");
            assert!(!answer.items().is_empty(), "{list}");
            seen.extend(answer.items().iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            lengths.push(answer.items().len());
            cursor = answer.body["next_cursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert!(lengths.iter().any(|rows| *rows > 1) && lengths.len() > 1, "{list}: {lengths:?}");
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "{list}: no row comes twice");
        let least = match list {
            "documents" => 12,
            "users" => 15,
            _ => 27,
        };
        assert!(seen.len() >= least, "{list}: {}", seen.len());
    }
    // What an entry says was read is what was given.
    let read = clinic.viewer.get(&page("documents", 200, &Value::Null)).await;
    let entry = clinic.admin.get("audit-logs?limit=1&action=DATA_ACCESS&resource_type=documents").await;
    let ids: Vec<&Value> = read.items().iter().map(|row| &row["id"]).collect();
    let entry = clinic.admin.get(&at("audit-logs", &entry.items()[0])).await;
    assert_eq!(entry.body["resource_ids"], json!(ids));
}

/// Plants documents as earlier releases took them.
async fn plant(connection: &DatabaseConnection, clinic: &TestTenant, owner: &Value, count: usize, metadata: &Value) {
    let (tenant, owner) = (clinic.id, owner.as_str().unwrap().parse::<Uuid>().unwrap());
    for _ in 0..count {
        let id = Uuid::now_v7();
        let row = document::ActiveModel {
            id: Set(id.into()),
            tenant_id: Set(tenant.into()),
            user_id: Set(owner.into()),
            storage_key: Set(format!("{tenant}/{id}")),
            bucket: Set("files".to_owned()),
            filename: Set("scan.pdf".to_owned()),
            content_type: Set("application/pdf".to_owned()),
            size_bytes: Set(7),
            metadata: Set(JsonText::new(metadata).unwrap()),
            ..Default::default()
        };
        document::Entity::insert(row).exec_without_returning(connection).await.unwrap();
    }
}

async fn oversized_old_rows_are_read_one_by_one(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let old = json!({"a": vec![1; 600_000]});
    plant(&app.owner, &clinic, &owner, 3, &old).await;
    let nested = (0..100).fold(json!(1), |inner, _| json!({"a": inner}));
    plant(&app.owner, &clinic, &owner, 1, &nested).await;
    let (mut pages, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let answer = clinic.viewer.get(&page("documents", 200, &cursor)).await;
        assert_eq!(answer.status, 200);
        pages.push(answer.items().len());
        for row in answer.items() {
            let read = clinic.viewer.get(&at("documents", row)).await;
            assert!(&read.body == row);
            // What is not changed stays, whatever its size.
            let changed = clinic.member.patch(&at("documents", row), &json!({"filename": "b"})).await;
            assert!(changed.status == 200 && changed.body["metadata"] == row["metadata"]);
        }
        cursor = answer.body["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    pages.sort_unstable();
    assert_eq!(pages, [1, 1, 1, 1]);
}

async fn lists_of_large_documents_take_little_memory(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    // All clients have one address, and what is asked here is memory, not time.
    let server = app.server(&[("MAX_CONCURRENT_REQUESTS_PER_CLIENT", "512"), ("REQUEST_TIMEOUT_SECONDS", "300")]).await;
    let clinic = TestTenant::open(&app, &server).await;
    let Some(before) = server.peak_memory() else {
        return skip("this system does not say how much memory a process has had");
    };
    let owner = clinic.user("owner@example.org").await["id"].clone();
    plant(&app.owner, &clinic, &owner, 200, &json!({"a": vec![1; 30_000]})).await;
    // To read them as JSON would take longer than the server takes to write them.
    for text in join_all((0..64).map(|_| clinic.viewer.text("documents?limit=200"))).await {
        assert!(text.starts_with(r#"{"items":[{"#) && text.contains(r#""next_cursor":""#), "{text:.80}");
    }
    let grown = server.peak_memory().unwrap() - before;
    let mib = |bytes: u64| bytes / 1024 / 1024;
    assert!(mib(grown) < 64, "{} MiB more than the {} MiB before", mib(grown), mib(before));
}
