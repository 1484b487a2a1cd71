//! Who may call what: no route is open by accident, roles are held, tenants and users that are gone are refused.

use crate::support::{LocalServer, borrowed, key_file};
use crate::{bulkhead, ready, run, run_on, stderr, stdout};
use axum::Router;
use axum::routing::get;
use bulkhead::context::{Admin, Permission, Require, TenantContext};
use bulkhead::entity::{tenant, user};
use bulkhead::server::api_document;
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, QueryFilter};
use serde_json::Value;
use test_support::{Database, Server, eventually, on_both_databases};
use uuid::Uuid;

on_both_databases!(
    development_token_creates_its_tenant,
    deleted_user_or_tenant_is_refused,
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

/// A folder of its own for the development issuer's key.
struct Developer {
    folder: tempfile::TempDir,
}

impl Developer {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn key(&self) -> String {
        key_file(self.folder.path())
    }

    async fn server<'d>(&self, database: &'d Database) -> Server<'d> {
        ready(database, &[("DEVELOPMENT_KEY_FILE", &self.key())]).await
    }

    async fn token(&self, database: &Database, arguments: &[&str]) -> String {
        let environment = [("DATABASE_URL", database.url.as_str()), ("DEVELOPMENT_KEY_FILE", &self.key())];
        let output = run(&[&["dev-token"], arguments].concat(), &environment).await;
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    }
}

/// Status, and error code or whole body.
async fn validate(server: &Server<'_>, token: &str) -> (u16, Value) {
    let url = format!("{}/api/v1/auth/validate", server.base);
    let response = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, if status == 200 { body } else { body["error"]["code"].clone() })
}

fn refused(status: u16, code: &str) -> (u16, Value) {
    (status, code.into())
}

#[tokio::test]
async fn each_operation_requires_a_token_or_is_listed() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let document = serde_json::to_value(api_document()).unwrap();
    let asks = |operation: &Value| operation["security"] == serde_json::json!([{"bearer": []}]);
    let mut open = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let url = path.replace("{id}", &Uuid::now_v7().to_string());
            assert!(!url.contains('{'), "{path}: a parameter that this test has no value for");
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = reqwest::Client::new().request(method.clone(), format!("{}{url}", server.base));
            let client = request.header("content-type", "application/json").body("{}");
            let response = client.send().await.unwrap();
            let (status, challenge) = (response.status(), response.headers().get("www-authenticate").cloned());
            let name = format!("{} {path}", method.as_str().to_lowercase());
            if status == 401 {
                assert_eq!(challenge.unwrap(), "Bearer", "{name}");
                let body: Value = response.json().await.unwrap();
                assert_eq!(body["error"]["code"], "AUTH_010", "{name}");
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
    let developer = Developer::new();
    let server = developer.server(&database).await;
    let token = developer.token(&database, &[]).await;
    let (status, body) = validate(&server, &token).await;
    assert_eq!((status, &body["valid"]), (200, &true.into()), "{body}");
    let connection = database.connect().await;
    let ours = || tenant::Entity::find().filter(tenant::Column::ExternalId.ne("system"));
    let tenant = ours().one(&connection).await.unwrap().unwrap();
    assert_eq!((tenant.external_id.as_str(), &body["tenant_id"]), ("development", &tenant.id.to_string().into()));
    assert!(body["expires_at"].as_i64().unwrap() > 0, "{body}");
    let admin =
        user::Entity::find().filter(user::Column::TenantId.eq(tenant.id)).one(&connection).await.unwrap().unwrap();
    assert_eq!((admin.external_idp_id.as_deref(), admin.role), (Some("developer"), user::Role::Admin));
    assert_eq!(body["user_id"], admin.id.to_string(), "the bearer may own documents");

    // A second one uses the same tenant and key.
    let again = developer.token(&database, &["--role", "viewer", "--minutes", "1"]).await;
    assert_eq!(validate(&server, &again).await.1["tenant_id"], body["tenant_id"]);
    assert_eq!(ours().all(&connection).await.unwrap().len(), 1);
    connection.close().await.unwrap();
    let log = server.log().join("\n");
    assert!(!log.contains(&token) && !log.contains("eyJ"), "a token in the log:\n{log}");
}

#[tokio::test]
async fn development_token_ignores_the_tenant_claim_name() {
    let database = Database::sqlite();
    let developer = Developer::new();
    let environment = [("DEVELOPMENT_KEY_FILE", developer.key()), ("JWT_TENANT_CLAIM_NAME", "org.tenant".to_owned())];
    let server = ready(&database, &borrowed(&environment)).await;
    let token = developer.token(&database, &[]).await;
    assert_eq!(validate(&server, &token).await.0, 200);
}

#[tokio::test]
async fn development_token_is_refused_outside_development() {
    let database = Database::sqlite();
    let developer = Developer::new();
    assert!(run_on(&database, &["migrate", "up"]).await.status.success());
    let token = developer.token(&database, &[]).await;
    let key = developer.key();
    for environment in ["staging", "production"] {
        let settings = [("ENVIRONMENT", environment), ("DEVELOPMENT_KEY_FILE", &key)];
        let server = ready(&database, &settings).await;
        assert_eq!(validate(&server, &token).await, refused(503, "SYS_004"), "{environment}");
        let (status, health) = server.get_json("/api/v1/health/ready").await;
        assert_eq!((status.as_u16(), &health["status"]), (200, &"degraded".into()), "{health}");
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
    let database = Database::sqlite();
    let developer = Developer::new();
    let key = developer.key();
    let environment = [("DATABASE_URL", database.url.as_str()), ("DEVELOPMENT_KEY_FILE", key.as_str())];
    let fails = async |arguments: &[&str], code: i32, part: &str| {
        let output = run(&[&["dev-token"], arguments].concat(), &environment).await;
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(code), ""), "{text}");
        assert!(text.contains(part), "{part} is missing: {text}");
    };
    fails(&[], 1, "bulkhead migrate up").await;
    assert!(run_on(&database, &["migrate", "up"]).await.status.success());
    fails(&["--tenant", "no"], 2, "3 to 128 letters").await;
    fails(&["--tenant", "system"], 2, "not 'system'").await;
    fails(&["--role", "owner"], 2, "admin, member, viewer").await;
    fails(&["--minutes", "61"], 2, "JWT_MAX_LIFETIME_MINUTES").await;
    std::fs::write(&key, "not a key").unwrap();
    fails(&[], 1, "DEVELOPMENT_KEY_FILE: ").await;
}

async fn with_user(connection: &DatabaseConnection, subject: &str, role: user::Role) -> user::Model {
    let tenant = tenant::Entity::find().filter(tenant::Column::ExternalId.eq("development"));
    let tenant = tenant.one(connection).await.unwrap().unwrap();
    let user = user::ActiveModel {
        id: Set(Uuid::now_v7().into()),
        tenant_id: Set(tenant.id),
        email: Set(format!("{subject}@example.org")),
        external_idp_id: Set(Some(subject.to_owned())),
        role: Set(role),
        ..Default::default()
    };
    user.insert(connection).await.unwrap()
}

async fn deleted_user_or_tenant_is_refused(database: Database) {
    let developer = Developer::new();
    let server = developer.server(&database).await;
    // The first token makes the tenant, and its bearer the first user.
    developer.token(&database, &[]).await;
    let token = developer.token(&database, &["--subject", "ada"]).await;
    let connection = database.connect().await;
    assert!(validate(&server, &token).await.1["user_id"].is_null());
    let ada = with_user(&connection, "ada", user::Role::Admin).await;
    let execute = async |statement: &str| connection.execute_unprepared(statement).await.unwrap();
    let (_, body) = validate(&server, &token).await;
    assert_eq!(body["user_id"], ada.id.to_string());

    let line = async |status: u64, name: &str| {
        eventually("the request is in the log", async || {
            let lines = server.log().into_iter().rev().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let mut lines = lines.filter(|line| line["route"] == "/api/v1/auth/validate" && line["status"] == status);
            lines.find_map(|line| line.get(name).cloned())
        })
        .await
    };
    assert_eq!(
        (line(200, "user_id").await, line(200, "tenant_id").await),
        (body["user_id"].clone(), body["tenant_id"].clone())
    );

    execute("UPDATE users SET deleted_at = created_at").await;
    assert_eq!(validate(&server, &token).await, refused(403, "AUTH_008"), "a deleted user, whatever the token says");
    assert_eq!(line(403, "error_code").await, "AUTH_008");
    let ada = with_user(&connection, "ada", user::Role::Admin).await;
    let (_, body) = validate(&server, &token).await;
    assert_eq!(body["user_id"], ada.id.to_string(), "the live one of two rows");

    execute("UPDATE tenants SET status = 'trial'").await;
    assert_eq!(validate(&server, &token).await.0, 200);
    execute("UPDATE tenants SET status = 'suspended'").await;
    assert_eq!(validate(&server, &token).await, refused(403, "AUTH_009"), "at once, though the token is known");
    execute("UPDATE tenants SET status = 'active', deleted_at = created_at").await;
    assert_eq!(validate(&server, &token).await, refused(403, "AUTH_009"));
    execute("UPDATE tenants SET deleted_at = NULL, external_id = 'renamed' WHERE external_id = 'development'").await;
    assert_eq!(validate(&server, &token).await, refused(403, "AUTH_009"));
    connection.close().await.unwrap();
}

/// The permission of a member.
struct Member;

impl Permission for Member {
    const ROLE: user::Role = user::Role::Member;
}

async fn handlers_get_the_roles_that_their_signatures_name(database: Database) {
    let developer = Developer::new();
    assert!(run_on(&database, &["migrate", "up"]).await.status.success());
    developer.token(&database, &[]).await;
    let tokens = [
        ("viewer", developer.token(&database, &["--subject", "ada", "--role", "viewer"]).await),
        ("member", developer.token(&database, &["--subject", "ada", "--role", "member"]).await),
        ("admin", developer.token(&database, &["--subject", "ada", "--role", "admin"]).await),
    ];
    // What the token says counts before what the user's row does.
    let pool = database.connect().await;
    with_user(&pool, "ada", user::Role::Viewer).await;
    let environment = [("DATABASE_URL", database.url.clone()), ("DEVELOPMENT_KEY_FILE", developer.key())];
    let routes = |state| {
        Router::new()
            .route("/anyone", get(async |_: TenantContext| ()))
            .route("/member", get(async |_: Require<Member>| ()))
            .route("/admin", get(async |admin: Require<Admin>| admin.0.caller.subject))
            .with_state(state)
    };
    let server = LocalServer::with_routes(&borrowed(&environment), routes).await;
    for (role, token) in &tokens {
        for (path, least) in [("anyone", 0), ("member", 1), ("admin", 2)] {
            let rank = tokens.iter().position(|(name, _)| name == role).unwrap();
            let response = reqwest::Client::new().get(format!("{}/{path}", server.base)).bearer_auth(token).send();
            let expected = if rank >= least { 200 } else { 403 };
            assert_eq!(response.await.unwrap().status(), expected, "{role} at /{path}");
        }
    }
    pool.close().await.unwrap();
}

#[tokio::test]
async fn token_is_503_while_the_provider_is_away() {
    let database = Database::sqlite();
    // Nothing listens on port 1.
    let provider = [("OIDC_ISSUER_URL", "http://127.0.0.1:1"), ("OIDC_CLIENT_ID", "bulkhead")];
    let server = Server::listening(bulkhead(), &[], &database, &provider).await;
    let (status, health) = eventually("the schema is ready", async || {
        let (status, health) = server.get_json("/api/v1/health/ready").await;
        (health["checks"]["process"]["status"] == "ok").then_some((status, health))
    })
    .await;
    assert_eq!((status.as_u16(), &health["checks"]["auth"]["status"]), (503, &"unreachable".into()), "{health}");
    assert_eq!(validate(&server, "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.e30.AA").await, refused(503, "SYS_004"));
}
