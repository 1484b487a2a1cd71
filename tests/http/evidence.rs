//! `bulkhead evidence`: what an auditor reads is what is there, and it tells no secret.

use crate::support::{TestApp, TestTenant};
use crate::{run, stderr, stdout};
use sea_orm::ConnectionTrait;
use serde_json::Value;
use std::process::Output;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(packet_says_what_is_there);

/// A key, which nobody may read in the packet.
const SIGNING_KEY: &str = "6vX1Y2JgQ0nR0w0n2V3m0m8s7l5pQm1o0u2Zt9y4cXo=";

async fn evidence(app: &TestApp, arguments: &[&str]) -> Output {
    let settings = [
        ("DATABASE_URL", app.database.url.as_str()),
        ("AUDIT_SIGNING_KEY", SIGNING_KEY),
        ("AUDIT_ORIGIN", "api.example.org"),
    ];
    run(&[&["evidence"], arguments].concat(), &settings).await
}

fn find<'p>(packet: &'p Value, list: &str, name: &str, is: &str) -> &'p Value {
    let rows = packet[list].as_array().unwrap();
    rows.iter().find(|row| row[name] == is).unwrap_or_else(|| panic!("no {is} in {list}: {packet}"))
}

async fn packet_says_what_is_there(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    clinic.user("ada@example.org").await;
    let output = evidence(&app, &[]).await;
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    assert!(!text.contains(SIGNING_KEY) && !text.contains("ada@example.org"), "{text}");
    let packet: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(packet["build"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(find(&packet, "settings", "name", "AUDIT_SIGNING_KEY")["value"], "***");
    let migration = find(&packet, "migrations", "name", "m20261127_000017_create_audit_checkpoints");
    assert!(migration["fingerprint"].as_str().is_some_and(|text| !text.is_empty()), "{migration}");
    assert_eq!(find(&packet, "findings", "about", "isolation")["verdict"], "good");
    let verified = app.must(&["audit", "verify"]).await;
    for log in packet["audit_logs"].as_array().unwrap() {
        let line = format!("{} ({}): ", log["tenant"].as_str().unwrap(), log["tenant_id"].as_str().unwrap());
        let line = verified.lines().find(|said| said.contains(&line)).unwrap();
        assert!(line.ends_with(&format!("head {}", log["head"].as_str().unwrap())), "{line}: {log}");
    }
    if app.database.url.starts_with("postgres") {
        assert_eq!(find(&packet, "roles", "name", "bulkhead_app")["may_log_in"], false);
        assert_eq!(find(&packet, "row_level_security", "table", "documents")["for_the_owner_too"], true);
        let policy = find(&packet, "policies", "table", "documents");
        assert!(policy["using"].as_str().unwrap().contains("app.current_tenant_id"), "{policy}");
        let grants = packet["grants"].as_array().unwrap();
        for (object, privilege) in [("audit_logs", "SELECT"), ("audit_checkpoints.note", "INSERT")] {
            let granted = grants.iter().find(|row| row["object"] == object && row["grantee"] == "bulkhead_app");
            assert_eq!(granted.unwrap()["privileges"], serde_json::json!([privilege]), "{object}");
        }
    } else {
        assert_eq!(packet["policies"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn file_is_for_its_owner_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let (app, _clinic) = TestTenant::start(Database::migrated_sqlite().await).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, sbom) = (folder.path().join("evidence.json"), folder.path().join("sbom.json"));
    std::fs::write(&sbom, r#"{"bomFormat": "CycloneDX"}"#).unwrap();
    let arguments = ["--output", file.to_str().unwrap(), "--sbom", sbom.to_str().unwrap()];
    let output = evidence(&app, &arguments).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let packet: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(packet["sbom"]["bomFormat"], "CycloneDX");
    let again = evidence(&app, &arguments).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("--output: ") && stderr(&again).contains("exists"), "{}", stderr(&again));
    std::fs::write(&sbom, "<xml/>").unwrap();
    let refused = evidence(&app, &["--sbom", sbom.to_str().unwrap()]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("is no JSON"), "{}", stderr(&refused));
}

#[tokio::test]
async fn what_is_wrong_is_in_it_and_ends_with_3() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start(database).await;
    clinic.user("ada@example.org").await;
    app.owner.execute_unprepared("ALTER TABLE documents NO FORCE ROW LEVEL SECURITY").await.unwrap();
    app.owner.execute_unprepared("ALTER TABLE audit_logs DISABLE TRIGGER USER").await.unwrap();
    let edit = "UPDATE audit_logs SET action = 'updated' WHERE sequence = 1";
    app.owner.execute_unprepared(edit).await.unwrap();
    let output = evidence(&app, &[]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let packet: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(find(&packet, "row_level_security", "table", "documents")["for_the_owner_too"], false);
    assert_eq!(find(&packet, "findings", "verdict", "wrong")["about"], "isolation");
    let broken = packet["audit_logs"].as_array().unwrap().iter().filter(|log| log["broken"].is_string()).count();
    assert!(broken > 0, "{packet}");
    assert!(stderr(&output).contains("wrong"), "{}", stderr(&output));
}
