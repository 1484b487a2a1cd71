//! What operators do from the command line: see tenants, suspend and resume them, bring their admins back.

use crate::stderr;
use crate::support::{AuditedTenant, TestApp, at};
use bulkhead::audit::id_end;
use bulkhead::entity::{audit_log, user};
use sea_orm::ActiveValue::Set;
use sea_orm::sqlx::types::time::OffsetDateTime;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use std::ops::Deref;
use std::time::Duration;
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    suspended_tenant_is_refused_until_resumed,
    tenants_are_listed_and_shown_with_what_they_hold,
    lost_last_admin_is_restored,
    a_role_is_given_to_a_live_user_of_the_tenant_alone,
    latest_deleted_user_is_restored,
    a_restored_user_takes_nothing_from_a_live_one,
    whoever_lists_the_users_is_recorded,
    a_deleted_tenant_is_shown_and_not_changed
);

/// The tenant `clinic`, whose admin is Ada, and `other`, whose admin has the same address.
struct Service {
    clinic: AuditedTenant,
    other: Uuid,
}

impl Deref for Service {
    type Target = TestApp;

    fn deref(&self) -> &TestApp {
        &self.clinic
    }
}

impl Service {
    async fn new(database: Database) -> Self {
        let (clinic, _) = AuditedTenant::start(database).await;
        Self { other: clinic.make_tenant("other").await, clinic }
    }

    /// Runs a command, which does nothing and says so.
    async fn nothing_to_do(&self, arguments: &[&str]) {
        let before = self.entries().await;
        let said = self.must(arguments).await;
        assert!(said.starts_with("nothing to do: "), "{arguments:?}: {said}");
        assert_eq!(self.entries().await, before, "{arguments:?} is recorded");
    }

    /// Runs a command, which is refused with this code in one line that begins so; nothing is recorded.
    async fn refused(&self, arguments: &[&str], code: i32, line: &str) {
        let before = self.entries().await;
        let output = self.run(arguments).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with(line) && said.lines().count() == 1, "{arguments:?}: {said}");
        assert_eq!(self.entries().await, before, "{arguments:?} is recorded");
    }

    /// How many entries all audit logs have.
    async fn entries(&self) -> usize {
        audit_log::Entity::find().all(&self.owner).await.unwrap().len()
    }

    /// The newest entry of the clinic's log: action, kind, which one, metadata.
    async fn newest(&self) -> (String, String, Option<Uuid>, Value) {
        let newest = self.clinic.newest().await;
        assert_eq!((&newest.user_id, &newest.ip, &newest.user_agent), (&None, &None, &None));
        (newest.action, newest.resource_type, newest.resource_id, newest.metadata)
    }

    /// Makes a user of the clinic, deleted so many minutes ago; their id.
    async fn user(&self, email: &str, subject: Option<&str>, deleted: Option<u64>) -> Uuid {
        let ago = |minutes| OffsetDateTime::now_utc() - Duration::from_secs(60 * minutes);
        let row = user::ActiveModel {
            id: Set(Uuid::now_v7().into()),
            tenant_id: Set(self.tenant.into()),
            email: Set(email.to_owned()),
            external_idp_id: Set(subject.map(str::to_owned)),
            role: Set(user::Role::Member),
            deleted_at: Set(deleted.map(ago)),
            ..Default::default()
        };
        row.insert(&self.owner).await.unwrap().id.into()
    }

    async fn row(&self, id: Uuid) -> user::Model {
        user::Entity::find_by_id(id).one(&self.owner).await.unwrap().unwrap()
    }

    /// The id of the tenant's Ada.
    async fn id_of_ada(&self, tenant: Uuid) -> Uuid {
        let of_tenant = user::Entity::find().filter(user::Column::TenantId.eq(tenant));
        of_tenant.filter(user::Column::Email.eq("ada@example.org")).one(&self.owner).await.unwrap().unwrap().id.into()
    }

    async fn delete(&self, table: &str, id: Uuid) {
        let id = self.literal(id);
        let sql = format!("UPDATE {table} SET deleted_at = '2026-01-01T00:00:00.000Z' WHERE id = {id}");
        assert_eq!(self.execute(&sql).await, 1);
    }

    async fn chains_hold(&self) {
        self.must(&["audit", "verify"]).await;
    }
}

fn entry(
    action: &str,
    kind: &str,
    id: impl Into<Option<Uuid>>,
    metadata: Value,
) -> (String, String, Option<Uuid>, Value) {
    (action.to_owned(), kind.to_owned(), id.into(), metadata)
}

/// The words of each line.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

fn lines(json: &str) -> Vec<Value> {
    json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn suspended_tenant_is_refused_until_resumed(database: Database) {
    let service = Service::new(database).await;
    let (ada, of_other) = (service.client("clinic", "ada", "admin"), service.client("other", "ada", "admin"));
    assert_eq!(ada.get("users").await.status, 200);
    let (suspend, resume) =
        (["tenant", "suspend", "--external-id", "clinic"], ["tenant", "resume", "--external-id", "clinic"]);
    service.nothing_to_do(&resume).await;

    assert_eq!(service.must(&suspend).await, "clinic is suspended; it was active\n");
    let metadata = json!({"by": "operator", "fields": ["status"], "status": {"from": "active", "to": "suspended"}});
    assert_eq!(service.newest().await, entry("UPDATED", "tenants", service.tenant, metadata));
    for path in ["users", "tenant", "auth/validate"] {
        assert_eq!(ada.get(path).await.outcome(), (403, "AUTH_009"), "{path}");
    }
    assert_eq!(of_other.get("users").await.status, 200);
    service.nothing_to_do(&suspend).await;

    assert_eq!(service.must(&[&resume[..], &["--trial"]].concat()).await, "clinic is trial; it was suspended\n");
    let metadata = json!({"by": "operator", "fields": ["status"], "status": {"from": "suspended", "to": "trial"}});
    assert_eq!(service.newest().await, entry("UPDATED", "tenants", service.tenant, metadata));
    assert_eq!(ada.get("tenant").await.body["status"], "trial");
    service.nothing_to_do(&resume).await;
    assert_eq!(service.must(&suspend).await, "clinic is suspended; it was trial\n");
    assert_eq!(service.must(&resume).await, "clinic is active; it was suspended\n");
    assert_eq!(ada.get("tenant").await.body["status"], "active");
    service.chains_hold().await;

    for verb in ["suspend", "resume", "show"] {
        let unknown = ["tenant", verb, "--external-id", "nobody"];
        service.refused(&unknown, 2, "--external-id: there is no tenant nobody").await;
        let output = service.run(&["tenant", verb, "--external-id", "system"]).await;
        assert_eq!(output.status.code(), Some(2), "the log of what belongs to no tenant is no customer");
    }
}

async fn tenants_are_listed_and_shown_with_what_they_hold(database: Database) {
    let service = Service::new(database).await;
    let ada = service.client("clinic", "ada", "admin");
    let document =
        json!({"bucket": "files", "filename": "scan.pdf", "content_type": "application/pdf", "size_bytes": 7});
    for _ in 0..3 {
        ada.make("documents", &document).await;
    }
    let gone = ada.make("documents", &document).await;
    assert_eq!(ada.delete(&at("documents", &gone)).await.status, 204);
    service.user("bob@example.org", None, None).await;
    service.user("gone@example.org", None, Some(1)).await;
    service.make_tenant("a-long-name-of-a-tenant").await;
    service.delete("tenants", service.other).await;
    let before = service.entries().await;

    let (clinic, other) = (service.tenant.to_string(), service.other.to_string());
    let table = service.must(&["tenant", "list"]).await;
    let rows = words(&table);
    assert_eq!(rows.len(), 4, "{table}");
    assert_eq!(rows[0], ["EXTERNAL", "ID", "ID", "STATUS", "CREATED", "DELETED", "NAME"]);
    assert_eq!((&rows[1][..3], &rows[1][4..]), (&["clinic", &clinic, "active"][..], &["-", "A", "clinic"][..]));
    assert_eq!((&rows[2][..3], rows[2][4]), (&["other", &other, "active"][..], "2026-01-01T00:00:00Z"));
    let column = |line: &str| line.chars().take_while(|c| *c != ' ').count();
    let ids: Vec<usize> = table.lines().skip(1).map(|line| line.find(" 0").unwrap()).collect();
    assert!(ids.iter().all(|at| *at == ids[0]), "ids stand below each other:\n{table}");
    assert_eq!(column(table.lines().last().unwrap()), "a-long-name-of-a-tenant".len());

    let listed = lines(&service.must(&["tenant", "list", "--json"]).await);
    let names: Vec<_> = listed.iter().map(|row| row["external_id"].as_str().unwrap()).collect();
    assert_eq!(names, ["clinic", "other", "a-long-name-of-a-tenant"]);
    assert_eq!((&listed[0]["id"], &listed[0]["deleted_at"]), (&json!(clinic), &Value::Null));
    assert!(listed[1]["deleted_at"].as_str().unwrap().starts_with("2026-01-01T00:00:00"), "{}", listed[1]);

    let show = ["tenant", "show", "--external-id", "clinic"];
    let shown = &lines(&service.must(&[&show[..], &["--json"]].concat()).await)[0];
    let counts = ["users", "admins", "documents"].map(|name| shown[name].as_u64().unwrap());
    assert_eq!((counts, &shown["status"], &shown["name"]), ([2, 1, 3], &json!("active"), &json!("A clinic")));
    let text = service.must(&show).await;
    for line in [["USERS", "2"], ["ADMINS", "1"], ["DOCUMENTS", "3"], ["STATUS", "active"]] {
        assert!(words(&text).iter().any(|words| *words == line), "{line:?} is missing:\n{text}");
    }
    assert_eq!(service.entries().await, before, "no person's data is shown, and nothing recorded");
}

async fn lost_last_admin_is_restored(database: Database) {
    let service = Service::new(database).await;
    let ada = service.client("clinic", "ada", "admin");
    let id = service.id_of_ada(service.tenant).await;
    // As it could be before the API refused it.
    service.delete("users", id).await;
    ada.get("users").await.assert_error(403, "AUTH_008");
    let restore = ["user", "restore", "--tenant", "clinic", "--email", "Ada@Example.org"];
    let said = service.must(&restore).await;
    assert_eq!(said, "Ada@Example.org of clinic is restored and has the role admin\n");
    assert_eq!(service.newest().await, entry("RESTORED", "users", id, json!({"by": "operator"})));
    assert_eq!(ada.get("users").await.status, 200);
    service.nothing_to_do(&restore).await;
    service.nothing_to_do(&[&restore[..], &["--role", "admin"]].concat()).await;
    let other_role = [&restore[..], &["--role", "viewer"]].concat();
    service.refused(&other_role, 1, "--role: Ada@Example.org of clinic is not deleted").await;

    // With another role at once.
    let bob = service.user("bob@example.org", Some("bob"), Some(5)).await;
    let promoted = ["user", "restore", "--tenant", "clinic", "--email", "bob@example.org", "--role", "admin"];
    let said = service.must(&promoted).await;
    assert_eq!(said, "bob@example.org of clinic is restored and has the role admin; it was member\n");
    let metadata = json!({"by": "operator", "fields": ["role"], "role": {"from": "member", "to": "admin"}});
    assert_eq!(service.newest().await, entry("RESTORED", "users", bob, metadata));
    let row = service.row(bob).await;
    assert_eq!((row.role, row.deleted_at), (user::Role::Admin, None));

    let unknown = ["user", "restore", "--tenant", "clinic", "--email", "nobody@example.org"];
    service.refused(&unknown, 2, "--email: clinic has no user nobody@example.org").await;
    let unknown = ["user", "restore", "--tenant", "nobody", "--email", "ada@example.org"];
    service.refused(&unknown, 2, "--tenant: there is no tenant nobody").await;
    service.chains_hold().await;
}

async fn a_role_is_given_to_a_live_user_of_the_tenant_alone(database: Database) {
    let service = Service::new(database).await;
    let (ada, namesake) = (service.id_of_ada(service.tenant).await, service.id_of_ada(service.other).await);
    let grant = async |email: &'static str, role: &'static str| {
        ["user", "grant", "--tenant", "clinic", "--email", email, "--role", role]
    };
    service.nothing_to_do(&grant("ada@example.org", "admin").await).await;
    service.refused(&grant("ada@example.org", "member").await, 1, "--role: clinic would have no admin left").await;
    let gone = service.user("gone@example.org", None, Some(1)).await;
    service
        .refused(&grant("gone@example.org", "admin").await, 1, "--email: gone@example.org of clinic is deleted")
        .await;
    service.refused(&grant("x@example.org", "admin").await, 2, "--email: clinic has no user x@example.org").await;

    let bob = service.user("bob@example.org", Some("bob"), None).await;
    let said = service.must(&grant("BOB@example.org", "admin").await).await;
    assert_eq!(said, "BOB@example.org of clinic has the role admin; it was member\n");
    let metadata = json!({"by": "operator", "fields": ["role"], "role": {"from": "member", "to": "admin"}});
    assert_eq!(service.newest().await, entry("UPDATED", "users", bob, metadata));
    service.must(&grant("ada@example.org", "viewer").await).await;
    let roles = [ada, bob, namesake, gone].map(async |id| service.row(id).await.role);
    let [ada, bob, namesake, gone] = roles;
    assert_eq!((ada.await, bob.await), (user::Role::Viewer, user::Role::Admin));
    assert_eq!((namesake.await, gone.await), (user::Role::Admin, user::Role::Member), "nobody else");
    let unknown = ["user", "grant", "--tenant", "nobody", "--email", "ada@example.org", "--role", "admin"];
    service.refused(&unknown, 2, "--tenant: there is no tenant nobody").await;
    for wrong in [&grant("ada@example.org", "owner").await[..], &grant("ada", "admin").await[..]] {
        assert_eq!(service.run(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    service.chains_hold().await;
}

async fn latest_deleted_user_is_restored(database: Database) {
    let service = Service::new(database).await;
    // The ids ascend in another order.
    let first = service.user("bob@example.org", None, Some(20)).await;
    let last = service.user("bob@example.org", None, Some(10)).await;
    let middle = service.user("BOB@example.org", None, Some(15)).await;
    let restore = ["user", "restore", "--tenant", "clinic", "--email", "bob@example.org"];
    service.must(&restore).await;
    assert_eq!(service.newest().await.2, Some(last));
    for (id, deleted) in [(first, true), (last, false), (middle, true)] {
        assert_eq!(service.row(id).await.deleted_at.is_some(), deleted);
    }
    service.refused(&restore, 1, "--email: clinic has a user bob@example.org who is not deleted").await;
}

async fn a_restored_user_takes_nothing_from_a_live_one(database: Database) {
    let service = Service::new(database).await;
    let deleted = service.user("ada@example.org", None, Some(1)).await;
    let restore = ["user", "restore", "--tenant", "clinic", "--email", "ada@example.org"];
    service.refused(&restore, 1, "--email: clinic has a user ada@example.org who is not deleted").await;
    let same_subject = service.user("other@example.org", Some("ada"), Some(1)).await;
    let restore = ["user", "restore", "--tenant", "clinic", "--email", "other@example.org"];
    service.refused(&restore, 1, "--email: another user of clinic has the external_idp_id").await;
    for id in [deleted, same_subject] {
        assert!(service.row(id).await.deleted_at.is_some());
    }
    service.chains_hold().await;
}

async fn whoever_lists_the_users_is_recorded(database: Database) {
    let service = Service::new(database).await;
    let ada = service.id_of_ada(service.tenant).await;
    let bob = service.user("bob@example.org", None, Some(1)).await;
    let list = ["user", "list", "--tenant", "clinic"];
    let table = service.must(&list).await;
    let rows = words(&table);
    assert_eq!(rows.len(), 3, "the other tenant's are not there:\n{table}");
    assert_eq!(rows[1][..3], ["ada@example.org", "admin", &ada.to_string()]);
    assert_eq!(rows[2][..3], ["bob@example.org", "member", &bob.to_string()]);
    let (action, kind, id, metadata) = service.newest().await;
    assert_eq!((action.as_str(), kind.as_str(), id), ("DATA_ACCESS", "users", None));
    assert_eq!((&metadata["by"], &metadata["count"]), (&json!("operator"), &json!(2)));
    assert_eq!(metadata["id_ends"], json!(id_end(ada) + &id_end(bob)));
    let before = service.entries().await;
    let listed = lines(&service.must(&[&list[..], &["--json"]].concat()).await);
    assert_eq!(service.entries().await, before + 1);
    let known: Vec<_> = listed.iter().map(|row| (&row["email"], &row["role"], &row["external_idp_id"])).collect();
    assert_eq!(known[0], (&json!("ada@example.org"), &json!("admin"), &json!("ada")));
    assert!(listed[0]["deleted_at"].is_null() && listed[1]["deleted_at"].is_string());

    // As many as fit an entry, and one more; and none.
    for number in 0..199 {
        service.user(&format!("user{number}@example.org"), None, None).await;
    }
    let before = service.entries().await;
    assert_eq!(service.must(&list).await.lines().count(), 202);
    assert_eq!(service.entries().await, before + 2);
    assert_eq!(service.newest().await.3["count"], 1);
    service.must(&["tenant", "create", "--name", "Empty", "--external-id", "empty"]).await;
    let before = service.entries().await;
    assert_eq!(service.must(&["user", "list", "--tenant", "empty"]).await.lines().count(), 1);
    assert_eq!(service.entries().await, before + 1);
    service.refused(&["user", "list", "--tenant", "nobody"], 2, "--tenant: there is no tenant nobody").await;
    service.chains_hold().await;
}

async fn a_deleted_tenant_is_shown_and_not_changed(database: Database) {
    let service = Service::new(database).await;
    service.delete("tenants", service.tenant).await;
    let shown = service.must(&["tenant", "show", "--external-id", "clinic"]).await;
    assert!(words(&shown).contains(&vec!["DELETED", "2026-01-01T00:00:00Z"]), "{shown}");
    for verb in ["suspend", "resume"] {
        service.refused(&["tenant", verb, "--external-id", "clinic"], 1, "--external-id: clinic is deleted").await;
    }
    let ada = ["--tenant", "clinic", "--email", "ada@example.org"];
    service.refused(&[&["user", "restore"], &ada[..]].concat(), 1, "--tenant: clinic is deleted").await;
    let grant = [&["user", "grant"], &ada[..], &["--role", "viewer"]].concat();
    service.refused(&grant, 1, "--tenant: clinic is deleted").await;
}
