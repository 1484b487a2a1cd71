//! What docs/backup.md says: who can take a backup, that it is whole, and what a restored database must say.

use crate::isolation::Deployment;
use crate::{run, stderr, stdout};
use sea_orm::{ConnectionTrait, Statement};
use std::path::Path;
use std::process::Output;
use test_support::{Database, skip};
use tokio::process::Command;

/// A deployment with a tenant in it, whose owner is no superuser.
struct Scene {
    deployment: Deployment,
    owner: String,
    settings: [(&'static str, String); 3],
}

impl Scene {
    async fn new() -> Option<Self> {
        if test_support::postgres_program("pg_dump").is_none() {
            skip("no pg_dump beside initdb");
            return None;
        }
        let deployment = Deployment::new().await?;
        let owner = deployment.login("").await;
        deployment.execute(&format!("GRANT bulkhead_app TO {owner}")).await;
        deployment.give_to(&owner).await;
        let settings = deployment.settings(&owner, &owner);
        deployment.succeed(&settings, &["migrate", "up"]).await;
        let create = ["tenant", "create", "--name", "One", "--external-id", "clinic-1"];
        deployment.succeed(&settings, &[&create[..], &["--admin-email", "ada@example.org"]].concat()).await;
        Some(Self { deployment, owner, settings })
    }

    /// Restores a dump into a database of its own, as a role.
    async fn restored(&self, dump: &Path, role: &str, options: &[&str]) -> (Database, [(&'static str, String); 2]) {
        let database = Database::postgres().await.unwrap();
        let superuser = database.connect().await;
        let give =
            format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO {role}', current_database()); END $$");
        superuser.execute_unprepared(&give).await.unwrap();
        superuser.close().await.unwrap();
        let url = database.url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1);
        let restored = program("pg_restore")
            .args(["--exit-on-error", "--single-transaction", "--dbname", &url])
            .args(options)
            .arg(dump)
            .output()
            .await
            .unwrap();
        assert!(restored.status.success(), "{}", stderr(&restored));
        let settings = [("DATABASE_URL", url.clone()), ("MIGRATION_DATABASE_URL", url)];
        (database, settings)
    }
}

fn program(name: &str) -> Command {
    Command::new(test_support::postgres_program(name).unwrap())
}

async fn dump(url: &str, file: &Path, options: &[&str]) -> Output {
    program("pg_dump").args(["--format=custom", "--file"]).arg(file).args(options).arg(url).output().await.unwrap()
}

/// The last words of every chain, tenant by tenant.
async fn chains(settings: &[(&'static str, String)]) -> String {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let verified = run(&["audit", "verify"], &settings).await;
    assert!(verified.status.success(), "{}", stderr(&verified));
    stdout(&verified)
}

async fn rows(database: &Database) -> Vec<i64> {
    let connection = database.connect().await;
    let mut counts = Vec::new();
    for table in ["tenants", "users", "documents", "audit_logs", "audit_heads", "seaql_migrations"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.unwrap().unwrap();
        counts.push(row.try_get_by_index(0).unwrap());
    }
    connection.close().await.unwrap();
    counts
}

#[tokio::test]
async fn the_owner_cannot_take_a_backup_and_is_told_so() {
    let Some(scene) = Scene::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let refused = dump(&scene.deployment.url(&scene.owner), &folder.path().join("own"), &[]).await;
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("row-level security"), "{}", stderr(&refused));
    // The option against which the page warns: it looks like a success, and is empty.
    let file = folder.path().join("empty");
    let empty = dump(&scene.deployment.url(&scene.owner), &file, &["--enable-row-security"]).await;
    assert!(empty.status.success(), "{}", stderr(&empty));
    let (database, _) = scene.restored(&file, &scene.owner, &[]).await;
    assert_eq!(rows(&database).await[..5], [0; 5]);
}

#[tokio::test]
async fn backup_by_a_role_of_its_own_is_whole() {
    let Some(scene) = Scene::new().await else { return };
    let backup = scene.deployment.login("BYPASSRLS").await;
    scene.deployment.execute(&format!("GRANT pg_read_all_data TO {backup}")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bulkhead.dump");
    let dumped = dump(&scene.deployment.url(&backup), &file, &[]).await;
    assert!(dumped.status.success(), "{}", stderr(&dumped));
    let (before, heads) = (rows(&scene.deployment.database).await, chains(&scene.settings).await);
    assert!(before[..4].iter().zip([2, 1, 0, 2]).all(|(found, expected)| *found == expected), "{before:?}");

    let (database, settings) = scene.restored(&file, &scene.owner, &[]).await;
    assert_eq!(rows(&database).await, before);
    assert_eq!(chains(&settings).await, heads);
    let borrowed = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let verified = run(&["migrate", "verify"], &borrowed).await;
    assert!(verified.status.success(), "{}", stderr(&verified));

    // Under another owner nobody would find a tenant: that is told, with what mends it.
    let other = scene.deployment.login("").await;
    scene.deployment.execute(&format!("GRANT bulkhead_app TO {other}")).await;
    let (database, settings) = scene.restored(&file, &other, &["--no-owner"]).await;
    let borrowed = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let faulty = run(&["migrate", "verify"], &borrowed).await;
    assert_eq!(faulty.status.code(), Some(3), "{}", stdout(&faulty));
    let connection = database.connect().await;
    for table in ["tenants", "users"] {
        let mend = format!("ALTER POLICY directory ON {table} TO {other}");
        assert!(stderr(&faulty).contains(&mend), "{}", stderr(&faulty));
        connection.execute_unprepared(&mend).await.unwrap();
    }
    connection.close().await.unwrap();
    let verified = run(&["migrate", "verify"], &borrowed).await;
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert_eq!(chains(&settings).await, heads);
}
