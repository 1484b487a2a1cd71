//! What docs/backup.md says: who can take a backup, that it is whole, and what a restored database must say.

mod drill;

use crate::isolation::{CREATE, Roles, deployment, succeed};
use crate::support::{TestApp, borrowed};
use crate::{run, stderr, stdout};
use std::path::Path;
use std::process::Output;
use test_support::skip;
use tokio::process::Command;

/// A deployment with a tenant in it, whose owner is no superuser.
async fn deployed() -> Option<(TestApp, String)> {
    if test_support::postgres_program("pg_dump").is_none() {
        skip("no pg_dump beside initdb");
        return None;
    }
    let app = deployment().await?;
    let owner = app.owning_login("").await;
    let roles = app.roles(&owner, &owner);
    succeed(&roles, &["migrate", "up"]).await;
    succeed(&roles, &CREATE).await;
    Some((app, owner))
}

/// Restores a dump into a database of its own, as a role.
async fn restored(dump: &Path, role: &str, options: &[&str]) -> (TestApp, Roles) {
    let app = deployment().await.unwrap();
    app.on_this_database(&format!("ALTER DATABASE %I OWNER TO {role}")).await;
    let restore = ["--exit-on-error", "--single-transaction", "--dbname", &app.url(role)];
    let restored = program("pg_restore").args(restore).args(options).arg(dump).output().await.unwrap();
    assert!(restored.status.success(), "{}", stderr(&restored));
    let roles = app.roles(role, role);
    (app, roles)
}

fn program(name: &str) -> Command {
    Command::new(test_support::postgres_program(name).unwrap())
}

/// A role that takes backups.
async fn backup_role(app: &TestApp) -> String {
    let backup = app.stranger("BYPASSRLS").await;
    app.execute(&format!("GRANT pg_read_all_data TO {backup}")).await;
    backup
}

async fn dump(url: &str, file: &Path, options: &[&str]) -> Output {
    program("pg_dump").args(["--format=custom", "--file"]).arg(file).args(options).arg(url).output().await.unwrap()
}

async fn rows(app: &TestApp) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in ["tenants", "users", "documents", "audit_logs", "audit_heads", "seaql_migrations"] {
        counts.push(app.value(&format!("SELECT count(*) FROM {table}")).await);
    }
    counts
}

#[tokio::test]
async fn the_owner_cannot_take_a_backup_and_is_told_so() {
    let Some((app, owner)) = deployed().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let refused = dump(&app.url(&owner), &folder.path().join("own"), &[]).await;
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("row-level security"), "{}", stderr(&refused));
    // The option against which the page warns: it looks like a success, and is empty.
    let file = folder.path().join("empty");
    let empty = dump(&app.url(&owner), &file, &["--enable-row-security"]).await;
    assert!(empty.status.success(), "{}", stderr(&empty));
    let (copy, roles) = restored(&file, &owner, &[]).await;
    assert_eq!(rows(&copy).await[..5], [0; 5]);
    // Without a record, too.
    let output = run(&["backup", "verify"], &borrowed(&roles)).await;
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(stdout(&output).contains("WRONG  rows: not even the tenant `system` is there"), "{}", stdout(&output));
}

#[tokio::test]
async fn backup_by_a_role_of_its_own_is_whole() {
    let Some((app, owner)) = deployed().await else { return };
    let backup = backup_role(&app).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bulkhead.dump");
    let dumped = dump(&app.url(&backup), &file, &[]).await;
    assert!(dumped.status.success(), "{}", stderr(&dumped));
    // The last words of every chain, tenant by tenant.
    let chains = async |roles: &Roles| succeed(roles, &["audit", "verify"]).await;
    let (before, heads) = (rows(&app).await, chains(&app.roles(&owner, &owner)).await);
    assert!(before[..4].iter().zip([2, 1, 0, 2]).all(|(found, expected)| *found == expected), "{before:?}");

    let (copy, roles) = restored(&file, &owner, &[]).await;
    assert_eq!(rows(&copy).await, before);
    assert_eq!(chains(&roles).await, heads);
    succeed(&roles, &["migrate", "verify"]).await;

    // Under another owner nobody would find a tenant: that is told, with what mends it.
    let other = app.login("").await;
    let (copy, roles) = restored(&file, &other, &["--no-owner"]).await;
    let faulty = run(&["migrate", "verify"], &borrowed(&roles)).await;
    assert_eq!(faulty.status.code(), Some(3), "{}", stdout(&faulty));
    for table in ["tenants", "users"] {
        let mend = format!("ALTER POLICY directory ON {table} TO {other}");
        assert!(stderr(&faulty).contains(&mend), "{}", stderr(&faulty));
        copy.execute(&mend).await;
    }
    succeed(&roles, &["migrate", "verify"]).await;
    assert_eq!(chains(&roles).await, heads);
}
