//! Which role each operation requires.

use crate::support::{TestApp, at, new_document};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(each_operation_requires_its_role);

async fn each_operation_requires_its_role(database: Database) {
    let app = TestApp::start(database).await;
    let clinic = app.new_tenant().await;
    let user = clinic.user("ada@example.org").await;
    let document = clinic.document(&user["id"]).await;
    let (user_at, document_at) = (at("users", &user), at("documents", &document));
    let restore = |path: &str| format!("{path}/restore");
    const VIEWER: usize = 0;
    const MEMBER: usize = 1;
    const ADMIN: usize = 2;
    let operations = [
        (VIEWER, "GET", "tenant".to_owned(), None),
        (ADMIN, "PATCH", "tenant".to_owned(), Some(json!({"name": "New"}))),
        (VIEWER, "GET", "users".to_owned(), None),
        (ADMIN, "POST", "users".to_owned(), Some(json!({"email": "new@example.org"}))),
        (VIEWER, "GET", user_at.clone(), None),
        (ADMIN, "PATCH", user_at.clone(), Some(json!({"full_name": "New"}))),
        (ADMIN, "DELETE", user_at.clone(), None),
        (ADMIN, "POST", restore(&user_at), None),
        (VIEWER, "GET", "documents".to_owned(), None),
        (MEMBER, "POST", "documents".to_owned(), Some(new_document(&user["id"]))),
        (VIEWER, "GET", document_at.clone(), None),
        (MEMBER, "PATCH", document_at.clone(), Some(json!({"filename": "new"}))),
        (MEMBER, "DELETE", document_at.clone(), None),
        (MEMBER, "POST", restore(&document_at), None),
        (ADMIN, "GET", "audit-logs".to_owned(), None),
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
            clinic.admin.restore(path).await.assert_status(200);
        }
    }
}
