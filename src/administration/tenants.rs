//! Which tenants there are, and how they are made.

use crate::audit::{self, Action, EventDraft};
use crate::database::{self, Access};
use crate::entity::tenant::{self, Status};
use crate::entity::user::{self, Role};
use crate::ids::{TenantId, UserId};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, Select,
    SqlErr,
};
use uuid::Uuid;

/// A tenant to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTenant {
    /// What people call it.
    pub name: String,
    /// What the identity provider calls it.
    pub external_id: String,
    /// Whether it pays.
    pub status: Status,
    /// Its first user, an admin: e-mail address, and the identity provider's name for them.
    pub admin: Option<(String, Option<String>)>,
}

/// Makes a tenant and its first user, and records that; `None` where the external id is taken. Needs the connection of a
/// role that may insert tenants: the one that migrates.
pub async fn create_tenant(connection: &DatabaseConnection, new: NewTenant) -> Result<Option<TenantId>, DbErr> {
    let id = TenantId(Uuid::now_v7());
    let transaction = database::begin(connection, id, Access::Operate).await?;
    let taken =
        tenant::Entity::find().filter(tenant::Column::ExternalId.eq(&new.external_id)).one(&transaction).await?;
    if taken.is_some() {
        return Ok(None);
    }
    let row = tenant::ActiveModel {
        id: Set(id),
        name: Set(new.name),
        external_id: Set(new.external_id),
        status: Set(new.status),
        ..Default::default()
    };
    match tenant::Entity::insert(row).exec_without_returning(&transaction).await {
        // Someone else has made it at the same moment.
        Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => return Ok(None),
        done => done?,
    };
    let created = |table| EventDraft::new(id, Action::Created, table);
    let mut events = vec![created("tenants").on(id)];
    if let Some((email, subject)) = new.admin {
        let admin = user::ActiveModel {
            id: Set(UserId(Uuid::now_v7())),
            tenant_id: Set(id),
            email: Set(email),
            external_idp_id: Set(subject),
            role: Set(Role::Admin),
            ..Default::default()
        };
        let admin = user::Entity::insert(admin).exec_with_returning(&transaction).await?;
        events.push(created("users").on(admin.id));
    }
    audit::append(&transaction, events).await?;
    transaction.commit().await?;
    Ok(Some(id))
}

/// A tenant as operators name it.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct TenantRow {
    /// Its id.
    pub id: TenantId,
    /// What the identity provider calls it.
    pub external_id: String,
}

/// Every tenant, deleted ones and the system's included, or the one of this external id; in the order of their ids.
pub async fn tenants(connection: &DatabaseConnection, external_id: Option<&str>) -> Result<Vec<TenantRow>, DbErr> {
    let transaction = database::begin(connection, audit::SYSTEM_TENANT, Access::Operate).await?;
    let mut select = every_tenant();
    if let Some(external_id) = external_id {
        select = select.filter(tenant::Column::ExternalId.eq(external_id));
    }
    select.into_model().all(&transaction).await
}

/// Every tenant as a [`TenantRow`], in the order of their ids.
pub(super) fn every_tenant() -> Select<tenant::Entity> {
    let columns = [tenant::Column::Id, tenant::Column::ExternalId];
    tenant::Entity::find().select_only().columns(columns).order_by_asc(tenant::Column::Id)
}
