//! The tables: the entities fit them, and they hold what they promise, on both databases alike.

use crate::run_on;
use bulkhead::entity::{tenant, user};
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ColumnTrait, DatabaseConnection, EntityTrait, QueryFilter};
use test_support::{Database, on_both_databases};
use uuid::Uuid;

on_both_databases!(
    rows_come_back_as_they_went_in,
    an_email_is_unique_among_a_tenants_live_users_whatever_its_case,
    a_user_needs_a_tenant_and_a_tenant_with_users_stays,
    values_out_of_range_are_refused
);

async fn migrated(database: &Database) -> DatabaseConnection {
    assert!(run_on(database, &["migrate", "up"]).await.status.success());
    database.connect().await
}

fn a_tenant(external_id: &str) -> tenant::ActiveModel {
    tenant::ActiveModel {
        id: Set(Uuid::now_v7()),
        name: Set("A clinic".to_owned()),
        external_id: Set(external_id.to_owned()),
        ..Default::default()
    }
}

fn a_user(tenant: Uuid, email: &str) -> user::ActiveModel {
    user::ActiveModel {
        id: Set(Uuid::now_v7()),
        tenant_id: Set(tenant),
        email: Set(email.to_owned()),
        ..Default::default()
    }
}

async fn rows_come_back_as_they_went_in(database: Database) {
    let connection = migrated(&database).await;
    let tenant = a_tenant("clinic-1").insert(&connection).await.unwrap();
    assert_eq!(tenant.status, tenant::Status::Active, "the default");
    let mut user = a_user(tenant.id, "Ada@example.org");
    user.role = Set(user::Role::Admin);
    let user = user.insert(&connection).await.unwrap();
    assert_eq!(user.created_at, user.updated_at);

    let ours = tenant::Entity::find().filter(tenant::Column::ExternalId.ne("system"));
    let tenants = ours.all(&connection).await.unwrap();
    let users = user::Entity::find().all(&connection).await.unwrap();
    assert_eq!((tenants, users), (vec![tenant], vec![user]));
}

async fn an_email_is_unique_among_a_tenants_live_users_whatever_its_case(database: Database) {
    let connection = migrated(&database).await;
    let one = a_tenant("one").insert(&connection).await.unwrap();
    let two = a_tenant("two").insert(&connection).await.unwrap();
    let first = a_user(one.id, "ada@example.org").insert(&connection).await.unwrap();
    assert!(a_user(one.id, "ADA@example.org").insert(&connection).await.is_err());
    a_user(two.id, "ada@example.org").insert(&connection).await.unwrap();

    let mut deleted: user::ActiveModel = first.clone().into();
    deleted.deleted_at = Set(Some(first.created_at));
    deleted.update(&connection).await.unwrap();
    a_user(one.id, "ADA@example.org").insert(&connection).await.unwrap();
}

async fn a_user_needs_a_tenant_and_a_tenant_with_users_stays(database: Database) {
    let connection = migrated(&database).await;
    assert!(a_user(Uuid::now_v7(), "ada@example.org").insert(&connection).await.is_err());
    let tenant = a_tenant("clinic-1").insert(&connection).await.unwrap();
    a_user(tenant.id, "ada@example.org").insert(&connection).await.unwrap();
    assert!(tenant::Entity::delete_by_id(tenant.id).exec(&connection).await.is_err());
}

async fn values_out_of_range_are_refused(database: Database) {
    use sea_orm::ConnectionTrait;
    let connection = migrated(&database).await;
    let tenant = a_tenant("clinic-1").insert(&connection).await.unwrap();
    assert!(a_tenant("clinic-1").insert(&connection).await.is_err(), "an external id taken");
    let mut long = a_tenant("clinic-2");
    long.name = Set("x".repeat(256));
    assert!(long.insert(&connection).await.is_err(), "a name too long");
    assert!(a_user(tenant.id, "").insert(&connection).await.is_err(), "an e-mail address of nothing");
    for statement in ["UPDATE tenants SET status = 'closed'", "UPDATE tenants SET name = ''"] {
        assert!(connection.execute_unprepared(statement).await.is_err(), "{statement}");
    }
}
