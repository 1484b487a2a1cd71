//! Who may call what: no route is open by accident, roles are held, tenants and users that are gone are refused.

use crate::support::{Answer, LocalServer, Serves, TestApp, TestClient, assert_log_without, key_file};
use crate::{must, ready, run, stderr, stdout};
use axum::Router;
use axum::routing::get;
use bulkhead::context::{Admin, Permission, Require, TenantContext};
use bulkhead::entity::{tenant, user};
use bulkhead::server::api_document;
use futures_util::future::join_all;
use reqwest::{Client, Method};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::Value;
use tempfile::TempDir;
use test_support::provider::Shape;
use test_support::{Database, eventually, on_both_databases, on_migrated_databases};
use uuid::Uuid;

on_both_databases!(development_token_creates_its_tenant);
on_migrated_databases!(
    deleted_user_or_tenant_is_refused,
    callers_who_come_together_are_told_apart,
    handlers_get_the_roles_that_their_signatures_name
);

/// Operations for which no token is asked. A new one is added here on purpose, or not at all.
const OPEN: [&str; 7] = [
    "get /api/v1/auth/login",
    "get /api/v1/health/live",
    "get /api/v1/health/ready",
    "get /api/v1/health/startup",
    "get /api/v1/version",
    "post /api/v1/auth/callback",
    "post /api/v1/auth/logout",
];

/// The setting that names a file for the development issuer's key, in a folder of its own.
struct Key {
    file: String,
    _folder: TempDir,
}

impl Key {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { file: key_file(folder.path()), _folder: folder }
    }

    fn setting(&self) -> (&'static str, &str) {
        ("DEVELOPMENT_KEY_FILE", &self.file)
    }

    /// What `dev-token` prints.
    async fn token(&self, database: &Database, arguments: &[&str]) -> String {
        let environment = [("DATABASE_URL", database.url.as_str()), self.setting()];
        must(&[&["dev-token"], arguments].concat(), &environment).await.trim().to_owned()
    }
}

/// What a server says of a token.
async fn validate(server: &impl Serves, token: &str) -> Answer {
    TestClient::with_token(&Client::new(), server, token).get("auth/validate").await
}

#[tokio::test]
async fn each_operation_requires_a_token_or_is_listed() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[]).await;
    let document = serde_json::to_value(api_document()).unwrap();
    let asks = |operation: &Value| operation["security"] == serde_json::json!([{"bearer": []}]);
    let mut open = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let url = path.replace("{id}", &Uuid::now_v7().to_string());
            assert!(!url.contains('{'), "{path}: a parameter that this test has no value for");
            let name = format!("{method} {path}");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = Client::new().request(method, format!("{}{url}", server.base));
            let request = request.header("content-type", "application/json").body("{}");
            let answer = Answer::read(request.send().await.unwrap()).await;
            let status = answer.status;
            if status == 401 {
                assert_eq!((answer.header("www-authenticate"), answer.code()), ("Bearer", "AUTH_010"), "{name}");
                assert!(asks(operation), "{name} asks for a token, but the document does not say so");
            } else {
                assert!(!asks(operation), "{name} says that it asks for a token, but answers {status}");
                open.push(name);
            }
        }
    }
    open.sort();
    assert_eq!(open, OPEN);
}

async fn development_token_creates_its_tenant(database: Database) {
    let key = Key::new();
    // Its tenant is the token's by a claim of the issuer's own.
    let server = ready(&database, &[key.setting(), ("JWT_TENANT_CLAIM_NAME", "org.tenant")]).await;
    let token = key.token(&database, &[]).await;
    let valid = validate(&server, &token).await;
    assert_eq!((valid.status, &valid.body["valid"]), (200, &true.into()), "{}", valid.body);
    let connection = database.connect().await;
    let ours = || tenant::Entity::find().filter(tenant::Column::ExternalId.ne("system"));
    let tenant = ours().one(&connection).await.unwrap().unwrap();
    let named = (tenant.external_id.as_str(), &valid.body["tenant_id"]);
    assert_eq!(named, ("development", &tenant.id.to_string().into()));
    assert!(valid.body["expires_at"].as_i64().unwrap() > 0, "{}", valid.body);
    let admin =
        user::Entity::find().filter(user::Column::TenantId.eq(tenant.id)).one(&connection).await.unwrap().unwrap();
    assert_eq!((admin.external_idp_id.as_deref(), admin.role), (Some("developer"), user::Role::Admin));
    assert_eq!(valid.body["user_id"], admin.id.to_string(), "the bearer may own documents");

    // A second one uses the same tenant and key.
    let again = key.token(&database, &["--role", "viewer", "--minutes", "1"]).await;
    assert_eq!(validate(&server, &again).await.body["tenant_id"], valid.body["tenant_id"]);
    assert_eq!(ours().all(&connection).await.unwrap().len(), 1);
    assert_log_without(&server, [token.as_str()]);
}

#[tokio::test]
async fn development_token_is_refused_outside_development() {
    let (database, key) = (Database::migrated_sqlite().await, Key::new());
    let token = key.token(&database, &[]).await;
    for environment in ["staging", "production"] {
        let settings = [("ENVIRONMENT", environment), key.setting()];
        let server = LocalServer::without_provider(&database, &settings).await;
        validate(&server, &token).await.assert_error(503, "SYS_004");
        let (status, health) = server.json("/api/v1/health/ready").await;
        assert_eq!((status, &health["status"]), (200, &"degraded".into()), "{health}");
        assert_eq!(health["checks"]["auth"]["status"], "not-configured");
        assert_eq!(health["checks"]["auth"]["error"], "SYS_004");

        let settings = [&settings[..], &[("DATABASE_URL", database.url.as_str())]].concat();
        let output = run(&["dev-token"], &settings).await;
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), String::new()));
        assert!(stderr(&output).starts_with("ENVIRONMENT: "), "{}", stderr(&output));
    }
    // Nor with a provider.
    let settings = [
        ("DATABASE_URL", database.url.as_str()),
        ("OIDC_ISSUER_URL", "http://127.0.0.1:1/"),
        ("OIDC_CLIENT_ID", "bulkhead"),
    ];
    let output = run(&["dev-token"], &settings).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("OIDC_ISSUER_URL: "), "{}", stderr(&output));
}

#[tokio::test]
async fn dev_token_says_what_to_change() {
    let (database, key) = (Database::sqlite(), Key::new());
    let environment = [("DATABASE_URL", database.url.as_str()), key.setting()];
    let fails = async |arguments: &[&str], code: i32, part: &str| {
        let output = run(&[&["dev-token"], arguments].concat(), &environment).await;
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(code), ""), "{text}");
        assert!(text.contains(part), "{part} is missing: {text}");
    };
    fails(&[], 1, "bulkhead migrate up").await;
    database.migrate().await;
    fails(&["--tenant", "no"], 2, "3 to 128 letters").await;
    fails(&["--tenant", "system"], 2, "not 'system'").await;
    fails(&["--role", "owner"], 2, "admin, member, viewer").await;
    fails(&["--minutes", "61"], 2, "JWT_MAX_LIFETIME_MINUTES").await;
    std::fs::write(&key.file, "not a key").unwrap();
    fails(&[], 1, "DEVELOPMENT_KEY_FILE: ").await;
}

/// They are looked up together.
async fn callers_who_come_together_are_told_apart(database: Database) {
    let app = TestApp::start_with(database, &[("JWT_ROLE_CLAIM_NAME", "no_such_claim")]).await;
    let mut callers = Vec::new();
    for _ in 0..4 {
        let clinic = app.new_tenant().await;
        for (subject, role) in [("ada", user::Role::Admin), ("vera", user::Role::Viewer)] {
            let id = app.insert_user(clinic.id, subject, role).await;
            callers.push((clinic.external_id.clone(), subject, (200, "-"), Some(id)));
        }
        callers.push((clinic.external_id.clone(), "nobody", (403, "AUTH_008"), None));
    }
    callers.push(("nowhere".to_owned(), "ada", (403, "AUTH_009"), None));
    let asked = callers.iter().cycle().take(52).map(async |(tenant, subject, outcome, id)| {
        let answer = app.client(tenant, subject, "admin").get("auth/validate").await;
        assert_eq!(answer.outcome(), *outcome, "{tenant} {subject}: {}", answer.body);
        if let Some(id) = id {
            assert_eq!(answer.body["user_id"], id.to_string());
        }
    });
    join_all(asked).await;
    // One whom PostgreSQL refuses fails alone.
    let (tenant, subject, ..) = &callers[0];
    let (good, bad) = (app.client(tenant, subject, "admin"), app.client(tenant, "a\0b", "admin"));
    let asked = (0..48).map(async |number| {
        let answer = if number % 8 == 0 { &bad } else { &good }.get("auth/validate").await;
        (number % 8 == 0, answer.status)
    });
    for (refused, status) in join_all(asked).await {
        assert_eq!(refused, status != 200, "{status}");
    }
}

async fn deleted_user_or_tenant_is_refused(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    // Its log names the callers.
    let server = app.server(&[]).await;
    let ada = TestClient::new(&app, &server, "clinic-1", "ada", "admin");
    let valid = async || ada.get("auth/validate").await;
    assert!(valid().await.body["user_id"].is_null());
    let id = app.insert_user(app.tenant, "ada", user::Role::Admin).await;
    let known = valid().await.body;
    assert_eq!(known["user_id"], id.to_string());

    let line = async |status: u64, name: &str| {
        eventually("the request is in the log", async || {
            let lines = server.log().into_iter().rev().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let mut lines = lines.filter(|line| line["route"] == "/api/v1/auth/validate" && line["status"] == status);
            lines.find_map(|line| line.get(name).cloned())
        })
        .await
    };
    for name in ["user_id", "tenant_id"] {
        assert_eq!(line(200, name).await, known[name]);
    }

    app.execute("UPDATE users SET deleted_at = created_at").await;
    assert_eq!(valid().await.outcome(), (403, "AUTH_008"), "a deleted user, whatever the token says");
    assert_eq!(line(403, "error_code").await, "AUTH_008");
    let id = app.insert_user(app.tenant, "ada", user::Role::Admin).await;
    assert_eq!(valid().await.body["user_id"], id.to_string(), "the live one of two rows");

    for (change, outcome) in [
        ("status = 'trial'", (200, "-")),
        // At once, though the token is known.
        ("status = 'suspended'", (403, "AUTH_009")),
        ("status = 'active', deleted_at = created_at", (403, "AUTH_009")),
        ("deleted_at = NULL, external_id = 'renamed'", (403, "AUTH_009")),
    ] {
        app.execute(&format!("UPDATE tenants SET {change} WHERE external_id = 'clinic-1'")).await;
        assert_eq!(valid().await.outcome(), outcome, "{change}");
    }
}

/// The permission of a member.
struct Member;

impl Permission for Member {
    const ROLE: user::Role = user::Role::Member;
}

async fn handlers_get_the_roles_that_their_signatures_name(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    // What the token says counts before what the user's row does.
    app.insert_user(app.tenant, "ada", user::Role::Viewer).await;
    let routes = |state| {
        Router::new()
            .route("/api/v1/anyone", get(async |_: TenantContext| ()))
            .route("/api/v1/member", get(async |_: Require<Member>| ()))
            .route("/api/v1/admin", get(async |admin: Require<Admin>| admin.0.caller.subject))
            .with_state(state)
    };
    let server = app.serve_routes(&[], routes).await;
    for (rank, role) in ["viewer", "member", "admin"].into_iter().enumerate() {
        let caller = TestClient::new(&app, &server, "clinic-1", "ada", role);
        for (least, path) in ["anyone", "member", "admin"].into_iter().enumerate() {
            let expected = if rank >= least { 200 } else { 403 };
            assert_eq!(caller.get(path).await.status, expected, "{role} at /{path}");
        }
    }
}
