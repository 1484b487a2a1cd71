//! Whatever login the server has: a superuser's, the tables' owner's, one of its own. It acts as `bulkhead_app` or not at all.

use super::readiness::isolation;
use crate::support::{SIGNING, TestApp, TestClient, TestTenant, at, borrowed, new_document, value};
use crate::{bulkhead, must, run, stderr};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use test_support::provider::Shape;
use test_support::{Database, Server, eventually};

/// The settings of a deployment that serves by one role and migrates by another.
pub(crate) type Roles = [(&'static str, String); 2];

/// An empty database of PostgreSQL, which lets in every role without a password.
pub(crate) async fn deployment() -> Option<TestApp> {
    let app = TestApp::not_migrated(Shape::Plain, Database::postgres_of_our_own().await?).await;
    // Roles belong to the server, which other tests use at the same time: one of them may have made it.
    let sql = "DO $$ BEGIN CREATE ROLE bulkhead_app NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
    app.execute(sql).await;
    Some(app)
}

impl TestApp {
    /// A new role, which may do as `bulkhead_app` may; it is gone with the server.
    pub(crate) async fn login(&self, rights: &str) -> String {
        let name = self.stranger(rights).await;
        self.execute(&format!("GRANT bulkhead_app TO {name}")).await;
        name
    }

    /// A new role; it is gone with the server.
    pub(crate) async fn stranger(&self, rights: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("login_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        self.execute(&format!("CREATE ROLE {name} LOGIN {rights}")).await;
        name
    }

    /// A new login that owns the database.
    pub(crate) async fn owning_login(&self, rights: &str) -> String {
        let owner = self.login(rights).await;
        self.on_this_database(&format!("ALTER DATABASE %I OWNER TO {owner}")).await;
        owner
    }

    /// Executes a statement in which `%I` stands for the database's name.
    pub(crate) async fn on_this_database(&self, sql: &str) {
        let sql = format!("DO $$ BEGIN EXECUTE format('{}', current_database()); END $$", sql.replace('\'', "''"));
        self.execute(&sql).await;
    }

    /// The database's URL for this role.
    pub(crate) fn url(&self, role: &str) -> String {
        self.database.url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1)
    }

    pub(crate) fn roles(&self, serves: &str, migrates: &str) -> Roles {
        [("DATABASE_URL", self.url(serves)), ("MIGRATION_DATABASE_URL", self.url(migrates))]
    }

    /// The program as a process that serves by these roles, and an admin of `clinic-1`.
    pub(crate) async fn served_by(&self, roles: &Roles) -> (Server<'_>, TestClient) {
        let server = self.server(&borrowed(roles)).await;
        let admin = TestClient::new(self, &server, "clinic-1", "developer", "admin");
        (server, admin)
    }
}

/// Runs a command as these roles, which succeeds: what it prints.
pub(crate) async fn succeed(roles: &Roles, arguments: &[&str]) -> String {
    must(arguments, &borrowed(roles)).await
}

/// What makes `clinic-1` with an admin.
pub(crate) const CREATE: [&str; 8] =
    ["tenant", "create", "--name", "One", "--external-id", "clinic-1", "--admin-email", "ada@example.org"];

/// Makes a document and finds it again.
async fn works(admin: &TestClient) {
    let owner = admin.all("users").await[0]["id"].clone();
    let document = admin.make("documents", &new_document(&owner)).await;
    let read = admin.get(&at("documents", &document)).await;
    assert_eq!((read.status, &read.body), (200, &document));
    assert_eq!(admin.patch(&at("documents", &document), &json!({"filename": "new"})).await.status, 200);
    assert!(admin.all("documents").await.iter().any(|row| row["id"] == document["id"]));
}

const GOOD: (u16, &str, &str) = (200, "ready", "database");

async fn assert_good(server: &Server<'_>) {
    let found = isolation(server).await;
    assert_eq!((found.0, found.1.as_str().unwrap(), found.2.as_str().unwrap()), GOOD);
}

#[tokio::test]
async fn superuser_login_is_confined_to_the_role() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::new(Shape::Plain, database).await;
    let server = app.server(&[]).await;
    let clinic = TestTenant::open(&app, &server).await;
    let user = clinic.user("ada@example.org").await;
    let document = clinic.document(&user["id"]).await;
    let superuser = "SELECT bool_and(r.rolsuper) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
         WHERE a.datname = current_database() AND a.application_name = 'bulkhead'";
    assert!(app.value::<bool>(superuser).await, "the server's login is a superuser");
    let path = at("documents", &document);

    // What the role may not do, the server cannot, though its login could.
    for (right, method, path, body) in [
        ("SELECT ON documents", "GET", &path, None),
        ("UPDATE (filename) ON documents", "PATCH", &path, Some(json!({"filename": "new"}))),
        ("EXECUTE ON FUNCTION append_entries(jsonb)", "GET", &"users".to_owned(), None),
        ("EXECUTE ON FUNCTION find_caller(text, text)", "GET", &"tenant".to_owned(), None),
    ] {
        app.execute(&format!("REVOKE {right} FROM bulkhead_app")).await;
        let refused = clinic.admin.send(method, path, None, body.as_ref()).await;
        assert!(refused.status >= 500, "{method} {path} without {right}: {} {}", refused.status, refused.body);
        app.execute(&format!("GRANT {right} TO bulkhead_app")).await;
        let good = clinic.admin.send(method, path, None, body.as_ref()).await;
        assert_eq!(good.status, 200, "{method} {path} with {right}: {}", good.body);
    }
    // A policy that shows nobody anything binds it, too: a superuser would pass it by.
    app.execute("CREATE POLICY nobody ON documents AS RESTRICTIVE USING (false)").await;
    clinic.viewer.get(&path).await.assert_error(404, "RES_001");
    assert!(clinic.viewer.all("documents").await.is_empty());
    app.execute("DROP POLICY nobody ON documents").await;
    assert_eq!(clinic.viewer.all("documents").await.len(), 1);
}

#[tokio::test]
async fn plain_owner_serves_and_sees_no_rows() {
    let Some(app) = deployment().await else { return };
    // One that may make roles and hand them out, as far as its PostgreSQL lets it; one to whom a superuser has handed it.
    for rights in ["CREATEROLE", "NOCREATEROLE"] {
        let owner = app.owning_login(rights).await;
        if rights == "CREATEROLE" {
            app.execute(&format!("GRANT bulkhead_app TO {owner} WITH ADMIN OPTION")).await;
        }
        let roles = app.roles(&owner, &owner);
        succeed(&roles, &["migrate", "up"]).await;
        let id = succeed(&roles, &CREATE).await;
        let (server, admin) = app.served_by(&roles).await;
        assert_good(&server).await;
        assert_eq!(admin.get("tenant").await.body["id"], id.trim());
        works(&admin).await;
        let verified = succeed(&roles, &["audit", "verify"]).await;
        assert!(verified.lines().any(|line| line.starts_with("good    clinic-1 ")), "{verified}");
        assert!(!succeed(&roles, &["audit", "export", "--tenant", "clinic-1"]).await.is_empty());

        let connection = sea_orm::Database::connect(app.url(&owner)).await.unwrap();
        for table in ["tenants", "users", "documents", "audit_logs", "audit_heads"] {
            let count = format!("SELECT count(*) FROM {table}");
            assert_eq!(value::<i64>(&connection, &count).await, 0, "{table}: FORCE binds the owner");
            assert!(app.value::<i64>(&count).await > 0, "{table}");
        }
        assert_eq!(connection.execute_unprepared("UPDATE users SET full_name = 'x'").await.unwrap().rows_affected(), 0);
        connection.close().await.unwrap();
        drop(server);
        succeed(&roles, &["migrate", "reset"]).await;
    }
}

#[tokio::test]
async fn plain_owner_operates_by_command_line() {
    let Some(app) = deployment().await else { return };
    let (owner, api) = (app.owning_login("NOCREATEROLE").await, app.login("").await);
    let roles = app.roles(&api, &owner);
    let succeed = async |arguments: &[&str]| succeed(&roles, arguments).await;
    succeed(&["migrate", "up"]).await;
    for tenant in ["clinic-1", "clinic-2"] {
        let create = ["tenant", "create", "--name", "One", "--external-id", tenant];
        let admin = ["--admin-email", "ada@example.org", "--admin-subject", "developer"];
        succeed(&[&create[..], &admin].concat()).await;
    }
    let (server, admin) = app.served_by(&roles).await;
    works(&admin).await;
    assert_eq!(succeed(&["tenant", "list", "--json"]).await.lines().count(), 2);
    let shown: Value =
        serde_json::from_str(&succeed(&["tenant", "show", "--external-id", "clinic-1", "--json"]).await).unwrap();
    assert_eq!(["users", "admins", "documents"].map(|name| shown[name].as_u64()), [Some(1); 3]);

    succeed(&["tenant", "suspend", "--external-id", "clinic-1"]).await;
    admin.get("users").await.assert_error(403, "AUTH_009");
    succeed(&["tenant", "resume", "--external-id", "clinic-1"]).await;
    assert_eq!(admin.get("users").await.status, 200);
    // Only this tenant's, of two with the same address.
    app.execute("UPDATE users SET deleted_at = now()").await;
    admin.get("users").await.assert_error(403, "AUTH_008");
    let ada = ["--tenant", "clinic-1", "--email", "ada@example.org"];
    succeed(&[&["user", "restore"], &ada[..], &["--role", "viewer"]].concat()).await;
    succeed(&[&["user", "grant"], &ada[..], &["--role", "admin"]].concat()).await;
    assert_eq!(admin.all("users").await[0]["role"], "admin");
    let listed = succeed(&["user", "list", "--tenant", "clinic-2", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert!(listed["deleted_at"].is_string(), "{listed}");
    let verified = succeed(&["audit", "verify"]).await;
    assert_eq!(verified.lines().filter(|line| line.starts_with("good ")).count(), 3, "{verified}");
    let signing = [&borrowed(&roles)[..], &SIGNING].concat();
    let notes = must(&["audit", "checkpoint"], &signing).await;
    assert_eq!(notes.lines().filter(|line| line.starts_with("api.example.org/")).count(), 2, "{notes}");

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("clinic-1");
    succeed(&["tenant", "export", "--external-id", "clinic-1", "--output", output.to_str().unwrap()]).await;
    for table in ["tenants", "users", "documents"] {
        let rows = std::fs::read_to_string(output.join(format!("{table}.jsonl"))).unwrap();
        assert_eq!(rows.lines().count(), 1, "{table}: {rows}");
    }
    succeed(&["tenant", "suspend", "--external-id", "clinic-1"]).await;
    let erase = ["tenant", "erase", "--external-id", "clinic-1", "--after", "0", "--yes-erase-all-data-of", "clinic-1"];
    succeed(&erase).await;
    admin.get("users").await.assert_error(403, "AUTH_009");
    assert_eq!(app.value::<i64>("SELECT count(*) FROM documents").await, 0);
    assert_eq!(
        app.value::<String>("SELECT string_agg(email, ' ' ORDER BY email) FROM users").await,
        "ada@example.org erased"
    );
    let verified = succeed(&["audit", "verify"]).await;
    assert_eq!(verified.lines().filter(|line| line.starts_with("good ")).count(), 3, "{verified}");
    drop(server);
    succeed(&["migrate", "reset"]).await;
}

#[tokio::test]
async fn a_login_of_its_own_needs_nothing_but_the_role() {
    let Some(app) = deployment().await else { return };
    for rights in ["INHERIT", "NOINHERIT"] {
        let roles = app.roles(&app.login(rights).await, "postgres");
        succeed(&roles, &["migrate", "up"]).await;
        let (server, admin) = app.served_by(&roles).await;
        assert_good(&server).await;
        succeed(&roles, &CREATE).await;
        works(&admin).await;
        drop(server);
        succeed(&roles, &["migrate", "reset"]).await;
    }
}

#[tokio::test]
async fn login_without_the_role_is_told_what_to_grant() {
    let Some(app) = deployment().await else { return };
    let login = app.login("").await;
    let roles = app.roles(&login, "postgres");
    succeed(&roles, &["migrate", "up"]).await;
    succeed(&roles, &CREATE).await;
    // A connection that is opened after the loss may not even read the history, and makes the instance unavailable.
    let one_connection = [&borrowed(&roles)[..], &[("DATABASE_MAX_CONNECTIONS", "1")]].concat();
    let server = app.server(&one_connection).await;
    let admin = TestClient::new(&app, &server, "clinic-1", "developer", "admin");
    assert_eq!(admin.get("users").await.status, 200);
    assert_good(&server).await;
    app.execute(&format!("REVOKE bulkhead_app FROM {login}")).await;
    assert_refused_and_told(&server, &admin).await;
    app.execute(&format!("GRANT bulkhead_app TO {login}")).await;
    assert_eq!(admin.get("users").await.status, 200);
    assert_good(&server).await;
}

#[tokio::test]
async fn login_with_history_alone_serves_nobody() {
    let Some(app) = deployment().await else { return };
    let login = app.stranger("").await;
    let roles = app.roles(&login, "postgres");
    succeed(&roles, &["migrate", "up"]).await;
    succeed(&roles, &CREATE).await;
    // Without that, it does not start.
    let output = run(&["start"], &[&borrowed(&roles)[..], &[("PORT", "0")]].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("GRANT bulkhead_app TO"), "{}", stderr(&output));
    // Or it waits, and says so.
    let environment = app.environment(&borrowed(&roles));
    let serve = async || Server::listening(bulkhead(), &["serve"], &app.database, &borrowed(&environment)).await;
    serve().await.log_line("not ready", "GRANT bulkhead_app TO").await;

    app.execute(&format!("GRANT SELECT ON seaql_migrations, seaql_migrations_meta TO {login}")).await;
    let server = serve().await;
    eventually("it knows the schema and the provider's keys", async || {
        let (_, health) = server.get_json("/api/v1/health/ready").await;
        ["process", "auth"].iter().all(|check| health["checks"][check]["status"] == "ok").then_some(())
    })
    .await;
    let admin = TestClient::new(&app, &server, "clinic-1", "developer", "admin");
    assert_refused_and_told(&server, &admin).await;
    app.execute(&format!("REVOKE ALL ON seaql_migrations, seaql_migrations_meta FROM {login}")).await;
}

async fn assert_refused_and_told(server: &Server<'_>, admin: &TestClient) {
    for path in ["tenant", "users", "documents", "audit-logs"] {
        let refused = admin.get(path).await;
        assert_eq!(refused.outcome(), (503, "SYS_007"), "{path}: {}", refused.body);
    }
    admin.post("users", &json!({"email": "x@example.org"})).await.assert_error(503, "SYS_007");
    let (status, overall, isolation, error) = isolation(server).await;
    assert_eq!(
        (status, overall, isolation, error),
        (503, json!("unavailable"), json!("not-enforced"), json!("SYS_007"))
    );
    server.log_line("GRANT bulkhead_app TO", "ERROR").await;
    let counted = eventually("the refusals are in the log", async || {
        let lines = server.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let refused = lines.filter(|line| line["error_code"] == "SYS_007").count();
        (refused >= 5).then_some(refused)
    });
    assert!(counted.await >= 5);
}
