//! How large documents' metadata may be, on both databases alike.

use crate::clinic::{Clinic, a_document, at};
use crate::identity::{Answer, World};
use sea_orm::DatabaseConnection;
use serde_json::Value;
use test_support::provider::Shape;
use test_support::{Database, Server, on_both_databases};

on_both_databases!(
    metadata_has_bounds_which_are_named,
    the_longest_metadata_is_a_setting,
    no_name_comes_twice_in_metadata,
    a_number_that_would_change_is_refused
);

/// A server with these settings, and what a test does there. The connection is the owner's.
async fn with_clinic(
    database: Database,
    settings: &[(&str, &str)],
    test: impl AsyncFnOnce(&Server<'_>, &Clinic, &DatabaseConnection),
) {
    let world = World::new(Shape::Plain, database).await;
    let server = world.server(settings).await;
    let connection = world.database.connect().await;
    let clinic = Clinic::open(&connection, &world, &server).await;
    test(&server, &clinic, &connection).await;
    connection.close().await.unwrap();
}

/// A body with this text as metadata.
fn body(owner: &Value, metadata: &str) -> String {
    a_document(owner).to_string().replacen('{', &format!("{{\"metadata\":{metadata},"), 1)
}

/// Sends metadata with a new document, and as a change of one: both answers.
async fn send(clinic: &Clinic, document: &Value, metadata: &str) -> [Answer; 2] {
    let path = at("documents", document);
    let change = format!("{{\"metadata\":{metadata}}}");
    [
        clinic.member.send_text("POST", "documents", None, Some(&body(&document["user_id"], metadata))).await,
        clinic.member.send_text("PATCH", &path, None, Some(&change)).await,
    ]
}

/// Both are refused for the metadata, and say why.
async fn refused(clinic: &Clinic, document: &Value, metadata: &str, why: &str) {
    for answer in send(clinic, document, metadata).await {
        assert_eq!(answer.refusal(), (400, "VAL_001", "metadata"), "{metadata:.60}: {}", answer.body);
        let detail = answer.body["error"]["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{metadata:.60}: {detail}");
    }
}

/// Both are done, and what is read afterwards is what was sent.
async fn taken(clinic: &Clinic, document: &Value, metadata: &str) {
    let expected: Value = serde_json::from_str(metadata).unwrap();
    for answer in send(clinic, document, metadata).await {
        assert!(answer.status < 300, "{metadata:.60}: {}", answer.body);
        let read = clinic.viewer.get(&at("documents", &answer.body)).await;
        assert_eq!((&answer.body["metadata"], &read.body["metadata"]), (&expected, &expected), "{metadata:.60}");
    }
}

async fn metadata_has_bounds_which_are_named(database: Database) {
    with_clinic(database, &[], async |_, clinic, _| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        let document = clinic.document(&owner).await;
        let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let items = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count - 1].join(","));
        let members = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("\"{at}\":{{}}")).collect();
            format!("{{{}}}", members.join(","))
        };
        for good in [long(65_536), deep(32), items(1000), members(1000)] {
            taken(clinic, &document, &good).await;
        }
        refused(clinic, &document, &long(65_537), "more than 65536 bytes (MAX_METADATA_BYTES)").await;
        // Spaces are sent, too.
        refused(clinic, &document, &format!("{{{}}}", " ".repeat(65_536)), "more than 65536 bytes").await;
        for depth in [33, 200, 10_000] {
            refused(clinic, &document, &deep(depth), "more than 32 deep").await;
        }
        for many in [items(1001), members(1001), items(20_000)] {
            refused(clinic, &document, &many, "more than 1000 members and items").await;
        }
        for other in ["[]", "1", "\"x\"", "true"] {
            refused(clinic, &document, other, "it must be an object").await;
        }
    })
    .await;
}

async fn the_longest_metadata_is_a_setting(database: Database) {
    with_clinic(database, &[("MAX_METADATA_BYTES", "12")], async |_, clinic, _| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        let document = clinic.document(&owner).await;
        taken(clinic, &document, r#"{"a":"1234"}"#).await;
        refused(clinic, &document, r#"{"a":"12345"}"#, "more than 12 bytes").await;
    })
    .await;
}

async fn no_name_comes_twice_in_metadata(database: Database) {
    with_clinic(database, &[], async |_, clinic, _| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        let document = clinic.document(&owner).await;
        taken(clinic, &document, r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}], "A": 1}"#).await;
        for twice in [r#"{"a": 1, "a": 1}"#, r#"{"b": {"a": 1, "a": 2}}"#, r#"{"b": [[{"a": 1, "\u0061": 2}]]}"#] {
            refused(clinic, &document, twice, "the name \"a\" comes twice").await;
        }
        // What the client calls its members is not taken for a field of the body.
        for name in ["missing field `filename`", "unknown field `x`"] {
            refused(clinic, &document, &format!("{{\"{name}\": 1, \"{name}\": 2}}"), "comes twice").await;
        }
    })
    .await;
}

async fn a_number_that_would_change_is_refused(database: Database) {
    with_clinic(database, &[], async |_, clinic, _| {
        let owner = clinic.user("owner@example.org").await["id"].clone();
        let document = clinic.document(&owner).await;
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
            taken(clinic, &document, &format!("{{\"a\":[{number}]}}")).await;
        }
        // What the database makes of it may be sent back.
        for answer in send(clinic, &document, r#"{"a": 6.02214076e23, "b": 1e100}"#).await {
            let path = at("documents", &answer.body);
            let read = clinic.member.text(&path).await;
            let (_, metadata) = read.split_once("\"metadata\":").unwrap();
            let (members, _) = metadata.split_once('}').unwrap();
            taken(clinic, &document, &format!("{members}}}")).await;
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
            refused(clinic, &document, &format!("{{\"a\":[{{\"b\":{number}}}]}}"), &why).await;
        }
    })
    .await;
}
