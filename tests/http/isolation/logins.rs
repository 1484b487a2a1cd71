//! Whatever login the server has: a superuser's, the tables' owner's, one of its own. It acts as `bulkhead_app` or not at all.

use super::readiness::isolation;
use crate::support::{TestApp, TestClient, TestTenant, at, borrowed, key_file, new_document};
use crate::{bulkhead, ready, run, stderr, stdout};
use reqwest::Client;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use test_support::provider::Shape;
use test_support::{Database, Server, eventually};

/// A database of PostgreSQL, the superuser's connection to it, and logins that it lets in without a password.
pub(crate) struct Deployment {
    pub(crate) database: Database,
    superuser: DatabaseConnection,
    folder: TempDir,
}

impl Deployment {
    pub(crate) async fn new() -> Option<Self> {
        let database = Database::postgres_of_our_own().await?;
        let superuser = database.connect().await;
        let deployment = Self { database, superuser, folder: tempfile::tempdir().unwrap() };
        // Roles belong to the server, which other tests use at the same time: one of them may have made it.
        let sql = "DO $$ BEGIN CREATE ROLE bulkhead_app NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
        deployment.execute(sql).await;
        Some(deployment)
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.superuser.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// A new role; it is gone with the server.
    pub(crate) async fn login(&self, rights: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("login_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        self.execute(&format!("CREATE ROLE {name} LOGIN {rights}")).await;
        name
    }

    /// Makes the database this role's own.
    pub(crate) async fn give_to(&self, owner: &str) {
        let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO ".to_owned()
            + owner
            + "', current_database()); END $$";
        self.execute(&sql).await;
    }

    /// The database's URL for this role.
    pub(crate) fn url(&self, role: &str) -> String {
        self.database.url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1)
    }

    /// The settings of a deployment that serves by one role and migrates by another.
    pub(crate) fn settings(&self, serves: &str, migrates: &str) -> [(&'static str, String); 3] {
        [
            ("DATABASE_URL", self.url(serves)),
            ("MIGRATION_DATABASE_URL", self.url(migrates)),
            ("DEVELOPMENT_KEY_FILE", key_file(self.folder.path())),
        ]
    }

    pub(crate) async fn succeed(&self, settings: &[(&str, String)], arguments: &[&str]) -> String {
        let output = run(arguments, &borrowed(settings)).await;
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    async fn server(&self, settings: &[(&str, String)]) -> Server<'_> {
        ready(&self.database, &borrowed(settings)).await
    }

    /// Someone with a token that `dev-token` printed.
    async fn admin(&self, settings: &[(&str, String)], server: &Server<'_>) -> TestClient {
        let token = self.succeed(settings, &["dev-token", "--tenant", "clinic-1"]).await;
        TestClient::with_token(&Client::new(), server, token.trim())
    }
}

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
    let Some(database) = Database::postgres().await else { return };
    let app = TestApp::new(Shape::Plain, database).await;
    let server = app.server(&[]).await;
    let connection = app.database.connect().await;
    let clinic = TestTenant::open(&connection, &app, &server).await;
    let user = clinic.user("ada@example.org").await;
    let document = clinic.document(&user["id"]).await;
    let superuser = Statement::from_string(
        DbBackend::Postgres,
        "SELECT bool_and(r.rolsuper) AS super FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
         WHERE a.datname = current_database() AND a.application_name = 'bulkhead'",
    );
    let row = connection.query_one_raw(superuser).await.unwrap().unwrap();
    assert!(row.try_get::<bool>("", "super").unwrap(), "the server's login is a superuser");
    let path = at("documents", &document);

    // What the role may not do, the server cannot, though its login could.
    for (right, method, path, body) in [
        ("SELECT ON documents", "GET", &path, None),
        ("UPDATE (filename) ON documents", "PATCH", &path, Some(json!({"filename": "new"}))),
        ("INSERT (action) ON audit_logs", "GET", &"users".to_owned(), None),
        ("EXECUTE ON FUNCTION find_caller(text, text)", "GET", &"tenant".to_owned(), None),
    ] {
        connection.execute_unprepared(&format!("REVOKE {right} FROM bulkhead_app")).await.unwrap();
        let refused = clinic.admin.send(method, path, None, body.as_ref()).await;
        assert!(refused.status >= 500, "{method} {path} without {right}: {} {}", refused.status, refused.body);
        connection.execute_unprepared(&format!("GRANT {right} TO bulkhead_app")).await.unwrap();
        let good = clinic.admin.send(method, path, None, body.as_ref()).await;
        assert_eq!(good.status, 200, "{method} {path} with {right}: {}", good.body);
    }
    // A policy that shows nobody anything binds it, too: a superuser would pass it by.
    connection.execute_unprepared("CREATE POLICY nobody ON documents AS RESTRICTIVE USING (false)").await.unwrap();
    clinic.viewer.get(&path).await.assert_error(404, "RES_001");
    assert!(clinic.viewer.all("documents").await.is_empty());
    connection.execute_unprepared("DROP POLICY nobody ON documents").await.unwrap();
    assert_eq!(clinic.viewer.all("documents").await.len(), 1);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn plain_owner_serves_and_sees_no_rows() {
    let Some(deployment) = Deployment::new().await else { return };
    // One that may make roles and hand them out, as far as its PostgreSQL lets it; one to whom a superuser has handed it.
    for rights in ["CREATEROLE", "NOCREATEROLE"] {
        let owner = deployment.login(rights).await;
        let admin_option = if rights == "CREATEROLE" { "WITH ADMIN OPTION" } else { "" };
        deployment.execute(&format!("GRANT bulkhead_app TO {owner} {admin_option}")).await;
        deployment.give_to(&owner).await;
        let settings = deployment.settings(&owner, &owner);
        deployment.succeed(&settings, &["migrate", "up"]).await;
        let create =
            ["tenant", "create", "--name", "One", "--external-id", "clinic-1", "--admin-email", "ada@example.org"];
        let id = deployment.succeed(&settings, &create).await;
        let server = deployment.server(&settings).await;
        assert_good(&server).await;
        let admin = deployment.admin(&settings, &server).await;
        assert_eq!(admin.get("tenant").await.body["id"], id.trim());
        works(&admin).await;
        let verified = deployment.succeed(&settings, &["audit", "verify"]).await;
        assert!(verified.lines().any(|line| line.starts_with("good    clinic-1 ")), "{verified}");
        assert!(!deployment.succeed(&settings, &["audit", "export", "--tenant", "clinic-1"]).await.is_empty());

        let connection = sea_orm::Database::connect(deployment.url(&owner)).await.unwrap();
        for table in ["tenants", "users", "documents", "audit_logs", "audit_heads"] {
            let count = async |connection: &DatabaseConnection| {
                let sql = format!("SELECT count(*) FROM {table}");
                let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
                row.unwrap().try_get::<i64>("", "count").unwrap()
            };
            assert_eq!(count(&connection).await, 0, "{table}: FORCE binds the owner");
            assert!(count(&deployment.superuser).await > 0, "{table}");
        }
        assert_eq!(connection.execute_unprepared("UPDATE users SET full_name = 'x'").await.unwrap().rows_affected(), 0);
        connection.close().await.unwrap();
        drop(server);
        deployment.succeed(&settings, &["migrate", "reset"]).await;
    }
}

#[tokio::test]
async fn plain_owner_operates_by_command_line() {
    let Some(deployment) = Deployment::new().await else { return };
    let (owner, api) = (deployment.login("NOCREATEROLE").await, deployment.login("").await);
    deployment.execute(&format!("GRANT bulkhead_app TO {owner}, {api}")).await;
    deployment.give_to(&owner).await;
    let settings = deployment.settings(&api, &owner);
    let succeed = async |arguments: &[&str]| deployment.succeed(&settings, arguments).await;
    succeed(&["migrate", "up"]).await;
    for tenant in ["clinic-1", "clinic-2"] {
        let create = ["tenant", "create", "--name", "One", "--external-id", tenant];
        let admin = ["--admin-email", "ada@example.org", "--admin-subject", "developer"];
        succeed(&[&create[..], &admin].concat()).await;
    }
    let server = deployment.server(&settings).await;
    let admin = deployment.admin(&settings, &server).await;
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
    deployment.execute("UPDATE users SET deleted_at = now()").await;
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
    drop(server);
    succeed(&["migrate", "reset"]).await;
}

#[tokio::test]
async fn a_login_of_its_own_needs_nothing_but_the_role() {
    let Some(deployment) = Deployment::new().await else { return };
    for rights in ["INHERIT", "NOINHERIT"] {
        let login = deployment.login(rights).await;
        deployment.execute(&format!("GRANT bulkhead_app TO {login}")).await;
        let settings = deployment.settings(&login, "postgres");
        deployment.succeed(&settings, &["migrate", "up"]).await;
        let server = deployment.server(&settings).await;
        assert_good(&server).await;
        deployment
            .succeed(
                &settings,
                &["tenant", "create", "--name", "One", "--external-id", "clinic-1", "--admin-email", "ada@example.org"],
            )
            .await;
        works(&deployment.admin(&settings, &server).await).await;
        drop(server);
        deployment.succeed(&settings, &["migrate", "reset"]).await;
    }
}

#[tokio::test]
async fn login_without_the_role_is_told_what_to_grant() {
    let Some(deployment) = Deployment::new().await else { return };
    let login = deployment.login("").await;
    deployment.execute(&format!("GRANT bulkhead_app TO {login}")).await;
    let settings = deployment.settings(&login, "postgres");
    deployment.succeed(&settings, &["migrate", "up"]).await;
    // A connection that is opened after the loss may not even read the history, and makes the instance unavailable.
    let one_connection = [&settings[..], &[("DATABASE_MAX_CONNECTIONS", "1".to_owned())]].concat();
    let server = deployment.server(&one_connection).await;
    let admin = deployment.admin(&settings, &server).await;
    assert_eq!(admin.get("users").await.status, 200);
    assert_good(&server).await;
    deployment.execute(&format!("REVOKE bulkhead_app FROM {login}")).await;
    assert_refused_and_told(&server, &admin).await;
    deployment.execute(&format!("GRANT bulkhead_app TO {login}")).await;
    assert_eq!(admin.get("users").await.status, 200);
    assert_good(&server).await;
}

#[tokio::test]
async fn login_with_history_alone_serves_nobody() {
    let Some(deployment) = Deployment::new().await else { return };
    let login = deployment.login("").await;
    let settings = deployment.settings(&login, "postgres");
    deployment.succeed(&settings, &["migrate", "up"]).await;
    // Without that, it does not start.
    let output = run(&["start"], &[&borrowed(&settings)[..], &[("PORT", "0")]].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("GRANT bulkhead_app TO"), "{}", stderr(&output));
    // Or it waits, and says so.
    let server = Server::listening(bulkhead(), &["serve"], &deployment.database, &borrowed(&settings)).await;
    server.log_line("not ready", "GRANT bulkhead_app TO").await;
    drop(server);

    deployment.execute(&format!("GRANT SELECT ON seaql_migrations, seaql_migrations_meta TO {login}")).await;
    let server = Server::listening(bulkhead(), &["serve"], &deployment.database, &borrowed(&settings)).await;
    let admin = deployment.admin(&settings, &server).await;
    assert_refused_and_told(&server, &admin).await;
    deployment.execute(&format!("REVOKE ALL ON seaql_migrations, seaql_migrations_meta FROM {login}")).await;
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
