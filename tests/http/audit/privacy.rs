//! No patient's data is in the log, wherever a client puts it.

use super::operations::{a_document, a_user, make};
use crate::support::{AuditedTenant, Request, TestApp, TestClient, chain};
use crate::{run, stderr, stdout};
use bulkhead::audit::SYSTEM_TENANT;
use bulkhead::entity::audit_log::{Entity, Model};
use futures_util::future::join_all;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(
    audit_log_holds_no_patient_data,
    subjects_of_strangers_are_hidden,
    ids_of_entries_salt_their_hashes
);

/// What must not be found: in names, addresses, files, metadata, headers and addresses.
const PATIENT: [&str; 7] =
    ["219-09-9999", "219099999", "patient@example.org", "Grace", "mrn-4711", "leukaemia", "555-867-5309"];

async fn audit_log_holds_no_patient_data(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let viewer = clinic.caller(clinic.own(), "ada", "viewer");
    let (user, document) = (make(&clinic, &admin, "users").await, make(&clinic, &admin, "documents").await);
    let mut new_user = a_user("patient");
    new_user["full_name"] = json!("Grace 219-09-9999");
    new_user["external_idp_id"] = json!("mrn-4711 219-09-9999");
    let mut new_document = a_document();
    new_document["filename"] = json!("Grace mrn-4711.pdf");
    new_document["content_type"] = json!("text/leukaemia");
    new_document["bucket"] = json!("patient-grace");
    new_document["storage_key"] = json!(format!("{}/219-09-9999", clinic.tenant));
    new_document["metadata"] = json!({"219-09-9999": "leukaemia", "ssn": "219-09-9999", "notes": ["Grace"]});
    let mut changes = new_document.clone();
    for name in ["storage_key", "bucket"] {
        changes.as_object_mut().unwrap().remove(name);
    }
    let unknown = json!({"ssn 219-09-9999": "Grace", "full_name": 219_099_999});
    let requests = [
        (201, Request::new("POST", "users").body(new_user.clone())),
        (409, Request::new("POST", "users").body(new_user.clone())),
        (201, Request::new("POST", "documents").body(new_document.clone())),
        (409, Request::new("POST", "documents").body(new_document)),
        (409, Request::new("PATCH", format!("users/{user}")).body(new_user.clone())),
        (200, Request::new("PATCH", format!("users/{user}")).body(json!({"full_name": "Grace"}))),
        (400, Request::new("PATCH", format!("users/{user}")).body(unknown)),
        (200, Request::new("PATCH", format!("documents/{document}")).body(changes)),
        (200, Request::new("PATCH", "tenant").body(json!({"name": "Grace of 219-09-9999"}))),
        (200, Request::new("GET", "users")),
        (200, Request::new("GET", "documents")),
        (200, Request::new("GET", "audit-logs?resource_type=Grace%20219-09-9999")),
        (400, Request::new("GET", "users?patient=Grace%20219-09-9999")),
        (400, Request::new("GET", "users/219-09-9999")),
        (400, Request::new("GET", "documents/patient@example.org")),
        (400, Request::new("GET", "documents?cursor=219-09-9999")),
        (404, Request::new("GET", "patients/219-09-9999")),
        (405, Request::new("PUT", "users/219-09-9999?name=Grace")),
    ];
    let agents = [
        "clinic/1.0".to_owned(),
        "clinic/1.2 (219-09-9999; patient@example.org; ssn=219099999; 555-867-5309)".to_owned(),
        format!("clinic/1.0 {}patient@example.org Grace/mrn-4711", "x".repeat(256 - 18)),
        format!("clinic/1.0 {} 219-09-9999 clinic/219-09-9999 x/219099999", "x".repeat(256 - 18)),
    ];
    let before = clinic.log().await.len();
    for (status, request) in &requests {
        let answer = request.by(&admin).await;
        assert_eq!(answer.status, *status, "{request:?}: {}", answer.body);
    }
    for agent in &agents {
        for caller in [&admin, &viewer] {
            let send = caller.request("GET", "audit-logs?limit=1");
            // Nor what a proxy says that knows no better.
            let send = send.header("user-agent", agent).header("x-forwarded-for", "patient@example.org, 219-09-9999");
            assert!(matches!(send.send().await.unwrap().status().as_u16(), 200 | 403));
        }
    }
    let log = clinic.log().await;
    assert!(log.len() >= before + 11 + 5, "what was asked is recorded, and what was refused again is counted");
    let kept: Vec<&str> = log.iter().rev().take(5).map(|entry| entry.user_agent.as_deref().unwrap()).collect();
    assert!(kept.iter().all(|agent| agent.starts_with("clinic/1.")), "a program's name and version are kept: {kept:?}");
    assert!(kept.iter().all(|agent| agent.len() < 40), "and nothing more: {kept:?}");

    // All columns of all chains.
    let dump = format!("{:?}", Entity::find().all(&clinic.owner).await.unwrap());
    assert!(dump.contains(&clinic.ada.to_string()) && dump.contains("full_name"), "the dump shows what there is");
    assert!(Entity::find().count(&clinic.owner).await.unwrap() >= log.len() as u64);
    for secret in PATIENT {
        assert!(!dump.contains(secret), "{secret} is in the audit log: {dump}");
    }
    // And an export holds no more.
    let export = clinic.must(&["audit", "export"]).await;
    for secret in PATIENT {
        assert!(!export.contains(secret), "{secret} is in the export");
    }
}

async fn subjects_of_strangers_are_hidden(database: Database) {
    let key = ("AUDIT_SUBJECT_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let clinic = AuditedTenant::new(database).await;
    let server = TestApp::serve(&clinic, &[key]).await;
    let (stranger, subject) = (clinic.caller(&server, "grace@example.org", "viewer"), "grace@example.org");
    // Read, and refused, in the tenant's log; then refused in the system's.
    stranger.get("documents").await.assert_status(200);
    stranger.patch("tenant", &json!({})).await.assert_status(403);
    let nowhere = TestClient::with_token(&clinic.http, &server, clinic.token("nowhere", subject, "admin"));
    nowhere.get("documents").await.assert_error(403, "AUTH_009");
    clinic.caller(&server, "ada", "admin").get("documents").await.assert_status(200);

    let command = async |arguments: &[&str], settings: &[(&str, &str)]| {
        run(arguments, &[&[("DATABASE_URL", clinic.database.url.as_str())], settings].concat()).await
    };
    let name = async |tenant: &str, subject: &str| {
        let output = command(&["audit", "subject", "--tenant", tenant, subject], &[key]).await;
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    };
    let (here, in_system) = (name("clinic", subject).await, name("system", subject).await);
    assert!(here.starts_with("hmac-sha256:") && here.len() == 12 + 64 && here != in_system, "{here}, {in_system}");
    let named = |entries: Vec<Model>| -> Vec<String> {
        entries.iter().filter_map(|entry| Some(entry.metadata.get("subject")?.as_str()?.to_owned())).collect()
    };
    assert_eq!(named(clinic.log().await), [here.clone(), here], "of the two entries without a user");
    assert_eq!(named(chain(&clinic.owner, SYSTEM_TENANT).await), [in_system]);
    assert_ne!(name("clinic", "grace2@example.org").await, name("clinic", subject).await);
    let export = clinic.must(&["audit", "export"]).await;
    assert!(!export.contains("grace"), "{export}");
    clinic.must(&["audit", "verify"]).await;

    let output = command(&["audit", "subject", "--tenant", "nobody", subject], &[key]).await;
    assert!(!output.status.success() && stderr(&output).contains("there is no tenant nobody"), "{}", stderr(&output));
    let output = command(&["audit", "subject", "--tenant", "clinic", subject], &[]).await;
    assert!(
        !output.status.success() && stderr(&output).starts_with("AUDIT_SUBJECT_KEY: is not set"),
        "{}",
        stderr(&output)
    );
    for wrong in ["grace", "AAECAwQ="] {
        let output = command(&["config", "check"], &[("AUDIT_SUBJECT_KEY", wrong)]).await;
        assert_eq!(
            stderr(&output).trim(),
            "AUDIT_SUBJECT_KEY: must be 32 bytes in base64, as of: openssl rand -base64 32"
        );
    }
}

/// An id that counted from its neighbour's would be no secret to whoever knows the neighbour.
async fn ids_of_entries_salt_their_hashes(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let document = make(&clinic, &admin, "documents").await;
    let path = format!("documents/{document}");
    for _ in 0..8 {
        // Many in a millisecond.
        for answer in join_all((0..8).map(|_| admin.get(&path))).await {
            answer.assert_status(200);
        }
    }
    // RFC 9562, 5.7: 48 bits of time, then 12 and 62 random ones behind the version and the variant.
    let random = |entry: &Model| {
        let id = entry.id.0.as_u128();
        (id >> 64 & 0xFFF) << 62 | id & ((1 << 62) - 1)
    };
    let mut random: Vec<u128> = clinic.log().await.iter().map(random).collect();
    random.sort_unstable();
    assert!(random.len() > 64, "{}", random.len());
    let nearest = random.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(nearest > 1 << 40, "two of the ids differ by {nearest} of 2^74");
}
