//! `bulkhead doctor`: what is wrong is named, with what mends it.

use crate::support::TestApp;
use crate::{run, stderr, stdout};
use sea_orm::ConnectionTrait;
use serde_json::Value;
use std::process::Output;
use test_support::Database;

async fn doctor(database: &Database, settings: &[(&str, &str)]) -> Output {
    run(&["doctor"], &[&[("DATABASE_URL", database.url.as_str())], settings].concat()).await
}

fn says(output: &Output, line: &str) -> bool {
    stdout(output).lines().any(|said| said.starts_with(line))
}

#[tokio::test]
async fn a_sound_deployment_is_good() {
    for database in [Some(Database::migrated_sqlite().await), Database::migrated_postgres().await].into_iter().flatten()
    {
        let output = doctor(&database, &[]).await;
        let text = stdout(&output);
        assert!(output.status.success() && !text.contains("WRONG"), "{text}{}", stderr(&output));
        for about in ["settings", "database", "schema", "isolation", "audit log", "provider"] {
            assert!(says(&output, &format!("good   {about}: ")), "{about}: {text}");
        }
        if database.url.starts_with("postgres") {
            // The tests' login.
            assert!(says(&output, "risky  login: DATABASE_URL logs in as a superuser"), "{text}");
            assert!(says(&output, "good   connections: ") && says(&output, "good   clocks: "), "{text}");
        }
        assert_eq!(text.matches("       -> ").count(), text.lines().filter(|line| line.starts_with("risky")).count());
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_mend() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let owner = database.connect().await;
    for (fault, about, mend) in [
        (
            "ALTER TABLE documents NO FORCE ROW LEVEL SECURITY",
            "isolation: ",
            "ALTER TABLE documents FORCE ROW LEVEL SECURITY",
        ),
        ("ALTER TABLE audit_logs DISABLE TRIGGER USER", "audit log: ", "ALTER TABLE audit_logs ENABLE TRIGGER USER"),
    ] {
        owner.execute_unprepared(fault).await.unwrap();
        let output = doctor(&database, &[]).await;
        assert_eq!(output.status.code(), Some(3), "{fault}: {}", stdout(&output));
        assert!(says(&output, &format!("WRONG  {about}")), "{fault}: {}", stdout(&output));
        owner.execute_unprepared(mend).await.unwrap();
        assert!(doctor(&database, &[]).await.status.success(), "{fault}");
    }
    let output = doctor(&database, &[("DATABASE_MAX_CONNECTIONS", "100000")]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(says(&output, "WRONG  connections: an instance takes 100004 connections"), "{}", stdout(&output));
    assert!(stdout(&output).contains("-> lower DATABASE_MAX_CONNECTIONS"), "{}", stdout(&output));
    assert!(stderr(&output).contains("1 thing is wrong"), "{}", stderr(&output));
}

#[tokio::test]
async fn an_empty_or_absent_database_is_one_thing() {
    let output = doctor(&Database::sqlite(), &[]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(says(&output, "WRONG  schema: ") && stdout(&output).matches("WRONG").count() == 1, "{}", stdout(&output));
    let away = [("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/app"), ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1")];
    let output = run(&["doctor"], &away).await;
    assert_eq!(output.status.code(), Some(3));
    let said = "WRONG  database: cannot use postgres://***@127.0.0.1:1/app: connection refused at 127.0.0.1:1";
    assert!(says(&output, said) && !stdout(&output).contains("hunter2"), "{}", stdout(&output));
}

#[tokio::test]
async fn the_provider_is_asked_for_its_keys() {
    let app = TestApp::without_tenants(test_support::provider::Shape::Plain, Database::migrated_sqlite().await).await;
    let environment = app.environment(&[("DATABASE_URL", &app.database.url)]);
    let output = run(&["doctor", "--json"], &crate::support::borrowed(&environment)).await;
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let findings: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let provider = findings.iter().find(|finding| finding["about"] == "provider").unwrap();
    assert_eq!((&provider["verdict"], &provider["mend"]), (&"good".into(), &Value::Null), "{provider}");
    let away = [("OIDC_ISSUER_URL", "http://127.0.0.1:1"), ("OIDC_CLIENT_ID", "x")];
    let output = doctor(&app.database, &away).await;
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(says(&output, "WRONG  provider: the keys of http://127.0.0.1:1/ cannot be fetched"), "{}", stdout(&output));
}
