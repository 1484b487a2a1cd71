//! Which role each operation requires.

use crate::support::{SAMPLES, Sample, TestTenant, at};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

// The places of the roles in the list of clients.
const VIEWER: usize = 0;
const MEMBER: usize = 1;
const ADMIN: usize = 2;

on_migrated_databases!(each_operation_requires_its_role);

async fn each_operation_requires_its_role(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let mut operations = vec![
        (VIEWER, "GET", "tenant".to_owned(), None),
        (ADMIN, "PATCH", "tenant".to_owned(), Some(json!({"name": "New"}))),
        (ADMIN, "GET", "audit-logs".to_owned(), None),
        (ADMIN, "GET", "audit-logs/checkpoint".to_owned(), None),
        (ADMIN, "GET", "audit-logs/proof?sequence=1".to_owned(), None),
    ];
    let mut rows = Vec::new();
    for sample in SAMPLES {
        let Sample { write, new, changes, .. } = sample;
        let path = sample.path();
        let row = at(&path, &clinic.admin.make(&path, &new(&owner)).await);
        let write = if *write == "admin" { ADMIN } else { MEMBER };
        operations.push((VIEWER, "GET", path.clone(), None));
        operations.push((write, "POST", path, Some(new(&owner))));
        operations.push((VIEWER, "GET", row.clone(), None));
        operations.push((write, "PATCH", row.clone(), Some(changes())));
        operations.push((write, "DELETE", row.clone(), None));
        operations.push((write, "POST", format!("{row}/restore"), None));
        rows.push(row);
    }
    let callers = [&clinic.viewer, &clinic.member, &clinic.admin];
    for (least, method, path, body) in operations {
        for (rank, caller) in callers.into_iter().enumerate() {
            let answer = caller.send(method, &path, None, body.as_ref()).await;
            if rank < least {
                assert_eq!(answer.outcome(), (403, "AUTH_008"), "{method} {path} by rank {rank}");
            } else {
                assert!(answer.status < 300 || answer.status == 404, "{method} {path} by {rank}: {}", answer.body);
            }
        }
        // Deleted by one of them, if it was to be; never by a viewer.
        for path in &rows {
            clinic.admin.restore(path).await.assert_status(200);
        }
    }
}
