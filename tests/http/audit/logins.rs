//! Logins and refused logins in the log.

use crate::login::{agreed, callback};
use crate::support::{Answer, Serves, TestApp, chain};
use bulkhead::audit::SYSTEM_TENANT;
use bulkhead::entity::audit_log::Model;
use bulkhead::entity::user;
use reqwest::header::HeaderValue;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use test_support::provider::{Person, Shape};
use test_support::{Database, Signal, on_migrated_databases};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

on_migrated_databases!(
    login_is_recorded_without_changing_the_user,
    a_refused_login_is_in_the_systems_log,
    strangers_leave_nothing_in_the_log,
    a_login_that_cannot_be_recorded_gives_no_token
);

async fn log_in(app: &TestApp, server: &impl Serves) -> Answer {
    let (begun, body) = agreed(app, server).await;
    callback(app, server, Some(&begun.cookie), &body).await
}

fn assert_from_here(entry: &Model, action: &str) {
    assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), (action, "users"), "{entry:?}");
    assert_eq!(entry.ip.as_deref().map(|ip| ip.trim_end_matches("/32")), Some("127.0.0.1"), "{entry:?}");
    assert_eq!(entry.user_agent.as_deref(), Some("browser/1.0"), "{entry:?}");
}

async fn login_is_recorded_without_changing_the_user(database: Database) {
    let app = TestApp::start(database).await;
    let server = app.own();
    let ours = async || chain(&app.owner, app.tenant).await;
    // Nobody whom the tenant has a row for: by the provider's name.
    assert_eq!(log_in(&app, server).await.status, 200);
    let log = ours().await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert_from_here(&log[0], "LOGIN");
    let said = (log[0].user_id, log[0].resource_id, &log[0].metadata);
    assert_eq!(said, (None, None, &json!({"subject": "provider|ada"})));

    let ada = app.insert_user(app.tenant, "provider|ada", user::Role::Member).await;
    let read = async || {
        let url = format!("{}/api/v1/users/{ada}", server.base);
        let answer = Answer::read(app.http.get(url).bearer_auth(app.good()).send().await.unwrap()).await;
        answer.assert_status(200);
        answer
    };
    let before = read().await;
    assert!(before.body["last_login_at"].is_null());
    assert_eq!(log_in(&app, server).await.status, 200);
    let after = read().await;
    // As text, .12Z would come after .123Z.
    let time = |value: &Value| OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap();
    let first = time(&after.body["last_login_at"]);
    assert!(first >= time(&before.body["updated_at"]), "{first}");
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(after.body["updated_at"], before.body["updated_at"]);
    assert_eq!(log_in(&app, server).await.status, 200);
    assert!(time(&read().await.body["last_login_at"]) > first, "each login is the last one");
    let log = ours().await;
    let actions: Vec<&str> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["LOGIN", "DATA_ACCESS", "LOGIN", "DATA_ACCESS", "LOGIN", "DATA_ACCESS"]);
    for entry in [&log[2], &log[4]] {
        assert_from_here(entry, "LOGIN");
        assert_eq!((entry.user_id, entry.resource_id, &entry.metadata), (Some(ada.into()), Some(ada), &json!({})));
    }

    // A user who is deleted has logged in at the provider, and may do nothing here.
    app.execute("UPDATE users SET deleted_at = updated_at").await;
    assert_eq!(log_in(&app, server).await.status, 200);
    let log = ours().await;
    assert_from_here(&log[6], "LOGIN");
    assert_eq!((log.len(), log[6].user_id), (7, Some(ada.into())));

    // A tenant that is not served has the refusal in its own log; one that nobody knows, in the system's.
    app.execute("UPDATE tenants SET status = 'suspended' WHERE external_id = 'clinic-1'").await;
    log_in(&app, server).await.assert_error(403, "AUTH_009");
    let log = ours().await;
    assert_from_here(&log[7], "LOGIN_REFUSED");
    assert_eq!((log.len(), log[7].user_id, &log[7].metadata), (8, Some(ada.into()), &json!({"code": "AUTH_009"})));
    app.provider.seat(Person { tenant: "nobody-knows".to_owned(), ..app.ada() });
    log_in(&app, server).await.assert_error(403, "AUTH_009");
    let system = chain(&app.owner, SYSTEM_TENANT).await;
    assert_eq!(system.len(), 1);
    assert_from_here(&system[0], "LOGIN_REFUSED");
    let said = json!({"code": "AUTH_009", "subject": "provider|ada", "tenant": "nobody-knows"});
    assert_eq!(system[0].metadata, said);
    app.must(&["audit", "verify"]).await;
}

async fn a_refused_login_is_in_the_systems_log(database: Database) {
    let app = TestApp::start(database).await;
    let server = app.own();
    let (begun, body) = agreed(&app, server).await;
    let (code, state) = (&body["code"], &body["state"]);
    for (at, (body, outcome)) in [
        (json!({"code": code, "state": "guess"}), (403, "AUTH_002")),
        (json!({"code": "guess", "state": state}), (400, "AUTH_001")),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(callback(&app, server, Some(&begun.cookie), &body).await.outcome(), outcome);
        let log = chain(&app.owner, SYSTEM_TENANT).await;
        assert_eq!(log.len(), at + 1, "{log:?}");
        assert_from_here(&log[at], "LOGIN_REFUSED");
        let said = (log[at].user_id, log[at].resource_id, &log[at].metadata);
        assert_eq!(said, (None, None, &json!({"code": outcome.1})));
    }
    // A token without a tenant.
    app.provider.seat(Person { tenant: String::new(), ..app.ada() });
    let answer = log_in(&app, server).await;
    answer.assert_status(403);
    let log = chain(&app.owner, SYSTEM_TENANT).await;
    assert_eq!((log.len(), &log[2].metadata["code"]), (3, &answer.body["error"]["code"]));
    assert!(chain(&app.owner, app.tenant).await.is_empty());
    // It is nobody's of any tenant.
    assert_eq!(app.must(&["audit", "export", "--tenant", "system"]).await.lines().count(), 3);
}

#[tokio::test]
async fn bytes_that_are_no_text_do_not_hide_a_program() {
    let app = TestApp::start(Database::migrated_sqlite().await).await;
    for (sent, kept) in [
        (&b"curl/8.0 \xff"[..], "curl/8.0"),
        ("Käse/1.0 curl/8.0".as_bytes(), "curl/8.0"),
        ("clinic/1.0 \u{202e}/1\u{200b}.0\u{2028}".as_bytes(), "clinic/1.0"),
        (b"\xfc\xff ada@example.org clinic/1.0\xff", "clinic/1.0"),
    ] {
        let (begun, body) = agreed(&app, app.own()).await;
        let request = app.http.post(format!("{}/api/v1/auth/callback", app.own().base)).header("cookie", begun.cookie);
        let request = request.header("user-agent", HeaderValue::from_bytes(sent).unwrap());
        assert_eq!(request.json(&body).send().await.unwrap().status(), 200);
        let log = chain(&app.owner, app.tenant).await;
        assert_eq!(log.last().unwrap().user_agent.as_deref(), Some(kept));
    }
}

async fn strangers_leave_nothing_in_the_log(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    let mut server = app.server(&[]).await;
    let (begun, body) = agreed(&app, &server).await;
    let (name, value) = begun.cookie.split_once('=').unwrap();
    for cookie in ["none=1", "", &format!("{name}=x"), &format!("{name}=x{value}"), &format!("{name}x={value}")] {
        for body in [&body, &json!({"code": "x", "state": "y"})] {
            assert_eq!(callback(&app, &server, Some(cookie), body).await.outcome(), (403, "AUTH_002"), "{cookie}");
        }
    }
    assert!(chain(&app.owner, SYSTEM_TENANT).await.is_empty());
    // Who begins a login, which anyone can, leaves one entry, and a count.
    let guess = json!({"code": "guess", "state": "guess"});
    for _ in 0..5 {
        callback(&app, &server, Some(&begun.cookie), &guess).await.assert_error(403, "AUTH_002");
    }
    assert_eq!(chain(&app.owner, SYSTEM_TENANT).await.len(), 1);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    let log = chain(&app.owner, SYSTEM_TENANT).await;
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(log[1].metadata, json!({"code": "AUTH_002", "count": 4}));
    for entry in &log {
        assert_from_here(entry, "LOGIN_REFUSED");
    }
    app.must(&["audit", "verify"]).await;
}

async fn a_login_that_cannot_be_recorded_gives_no_token(database: Database) {
    let app = TestApp::start(database).await;
    let server = app.own();
    app.execute(if app.on_postgres() {
        "REVOKE EXECUTE ON FUNCTION append_entries(jsonb) FROM bulkhead_app"
    } else {
        "CREATE TRIGGER full BEFORE INSERT ON audit_logs BEGIN SELECT RAISE(ABORT, 'no'); END"
    })
    .await;
    for with_a_row in [false, true] {
        if with_a_row {
            app.insert_user(app.tenant, "provider|ada", user::Role::Member).await;
        }
        let answer = log_in(&app, server).await;
        assert_eq!(answer.outcome(), (500, "SYS_003"), "{}", answer.body);
        assert!(answer.body["access_token"].is_null() && answer.header("set-cookie").is_empty());
    }
    let users = user::Entity::find().all(&app.owner).await.unwrap();
    assert_eq!((users.len(), users[0].last_login_at), (1, None));
    // What is refused stays refused.
    let (begun, body) = agreed(&app, server).await;
    let body = json!({"code": body["code"], "state": "guess"});
    callback(&app, server, Some(&begun.cookie), &body).await.assert_error(403, "AUTH_002");
}
