//! Readiness says who keeps tenants apart, and when nobody but the application does.

use crate::ready;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use test_support::{Database, Server};

/// Status, `status`, and the isolation's `status` and `error`.
pub(super) async fn isolation(server: &Server<'_>) -> (u16, Value, Value, Value) {
    let (status, mut body) = server.get_json("/api/v1/health/ready").await;
    let check = body["checks"]["isolation"].take();
    (status.as_u16(), body["status"].take(), check["status"].clone(), check["error"].clone())
}

#[tokio::test]
async fn on_sqlite_it_is_the_application() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    assert_eq!(isolation(&server).await, (200, json!("ready"), json!("application"), Value::Null));
}

#[tokio::test]
async fn on_postgres_it_is_the_database_until_an_operator_takes_a_part_of_it_away() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let server = ready(&database, &[]).await;
    let good = (200, json!("ready"), json!("database"), Value::Null);
    assert_eq!(isolation(&server).await, good);
    let connection = database.connect().await;
    let mut cases = vec![(
        "GRANT DELETE ON audit_logs TO bulkhead_app".to_owned(),
        "REVOKE DELETE ON audit_logs FROM bulkhead_app".to_owned(),
    )];
    for table in ["tenants", "users", "documents", "audit_logs", "audit_heads"] {
        for (off, on) in [("NO FORCE", "FORCE"), ("DISABLE", "ENABLE")] {
            let alter = |word: &str| format!("ALTER TABLE {table} {word} ROW LEVEL SECURITY");
            cases.push((alter(off), alter(on)));
        }
    }
    for (off, on) in cases {
        connection.execute_unprepared(&off).await.unwrap();
        let degraded = (200, json!("degraded"), json!("not-enforced"), json!("SYS_007"));
        assert_eq!(isolation(&server).await, degraded, "{off}");
        connection.execute_unprepared(&on).await.unwrap();
        assert_eq!(isolation(&server).await, good, "{on}");
    }
    connection.close().await.unwrap();
}
