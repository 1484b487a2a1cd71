//! What operators do from the command line: make, show, suspend, resume, export and erase tenants, verify exports, give users
//! roles, restore users, repair audit logs, make the login of run time, and look at a deployment or at a restored copy.
//!
//! All of it needs the connection that migrations use. A change and its entry in the tenant's audit log are one
//! transaction, and so are a look at the users and its entry.

mod backup_record;
mod backup_verify;
mod catalogue;
mod checkpoints;
mod doctor;
mod erasure;
mod evidence;
mod export;
mod export_manifest;
mod export_verify;
mod finding;
mod run_time_login;
mod tenants;
mod ways;

pub use backup_record::{BACKUP, Holdings, Record, make_record};
pub use backup_verify::{Given, Report, verify_copy};
pub use checkpoints::{Checkpoints, make_checkpoints};
pub use doctor::examine;
pub use erasure::{Erasure, erase_tenant};
pub use evidence::{AuditLog, Build, Evidence, collect_evidence};
pub use export::{Exported, export_tenant};
pub use export_manifest::{EXPORT, LEFT_OUT};
pub use export_verify::verify_export;
pub use finding::{Finding, Verdict};
pub use run_time_login::{Prepared, Unfit, prepare_login};
pub use tenants::{NewTenant, TenantRow, create_tenant, tenants};

use crate::audit::{self, Action, EventDraft, SYSTEM_TENANT};
use crate::database::{self, Access, Transaction};
use crate::entity::tenant::{self, Status};
use crate::entity::user::{self, Role};
use crate::entity::word;
use crate::ids::TenantId;
use crate::resources::documents;
use crate::tenancy::last_admin::{self, Loss};
use crate::tenancy::{Table, TenantScoped};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait, Func};
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    SqlErr,
};

/// Who does what a command does, as entries of the audit log say it.
const OPERATOR: &str = "operator";

/// How many users one entry of the audit log names: as many as the longest page of the API.
const USERS_OF_AN_ENTRY: usize = 200;

/// Why an operator's command was not done. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no tenant of this external id.
    NoTenant,
    /// The tenant is deleted.
    TenantDeleted,
    /// The tenant has no such user.
    NoUser,
    /// The user is deleted.
    UserDeleted,
    /// The user is not deleted, and has another role.
    NotDeleted,
    /// A live user of the tenant has the same e-mail address.
    EmailTaken,
    /// A live user of the tenant has the same name at the identity provider.
    SubjectTaken,
    /// The tenant would have no admin left.
    LastAdmin,
    /// The tenant's audit log holds.
    ChainHolds,
}

/// What was there before a command, and what is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<T> {
    /// Before.
    pub from: T,
    /// Now.
    pub to: T,
    /// Whether anything was done; if not, nothing is recorded, either.
    pub made: bool,
}

impl<T: Copy> Change<T> {
    const fn none(stays: T) -> Self {
        Self { from: stays, to: stays, made: false }
    }

    const fn made(from: T, to: T) -> Self {
        Self { from, to, made: true }
    }
}

/// A refusal is an answer; an error is the database's.
pub type Operated<T> = Result<Result<T, Refusal>, DbErr>;

/// A tenant, and how much of it is there. What is deleted does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantOverview {
    /// Its row.
    pub tenant: tenant::Model,
    /// Its users.
    pub users: u64,
    /// Those of them who are admins.
    pub admins: u64,
    /// Its documents.
    pub documents: u64,
}

/// Every tenant but the system's own, deleted ones included; oldest first. Not recorded: it shows no person's data.
pub async fn list_tenants(connection: &DatabaseConnection) -> Result<Vec<tenant::Model>, DbErr> {
    let transaction = database::begin(connection, SYSTEM_TENANT, Access::Operate).await?;
    let customers = tenant::Entity::find().filter(tenant::Column::Id.ne(SYSTEM_TENANT));
    customers.order_by_asc(tenant::Column::Id).all(&transaction).await
}

/// The tenant of this external id. Not recorded: it shows no person's data.
pub async fn tenant_overview(connection: &DatabaseConnection, external_id: &str) -> Operated<TenantOverview> {
    let (transaction, tenant) = match open(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let users = || users_of(tenant.id).filter(user::Column::DeletedAt.is_null());
    let documents = documents::Entity::find()
        .filter(documents::Entity::TENANT.eq(tenant.id))
        .filter(documents::Column::DeletedAt.is_null());
    Ok(Ok(TenantOverview {
        users: users().count(&transaction).await?,
        admins: users().filter(user::Column::Role.eq(Role::Admin)).count(&transaction).await?,
        documents: documents.count(&transaction).await?,
        tenant,
    }))
}

/// Shuts the tenant out, from its next request on.
pub async fn suspend_tenant(connection: &DatabaseConnection, external_id: &str) -> Operated<Change<Status>> {
    set_status(connection, external_id, |status| match status {
        Status::Suspended => status,
        Status::Active | Status::Trial => Status::Suspended,
    })
    .await
}

/// Serves a suspended tenant again, as `to`. One that is not suspended stays as it is.
pub async fn resume_tenant(connection: &DatabaseConnection, external_id: &str, to: Status) -> Operated<Change<Status>> {
    set_status(connection, external_id, |status| match status {
        Status::Suspended => to,
        Status::Active | Status::Trial => status,
    })
    .await
}

async fn set_status(
    connection: &DatabaseConnection,
    external_id: &str,
    next: impl FnOnce(Status) -> Status,
) -> Operated<Change<Status>> {
    let (transaction, tenant) = match open_live(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (from, to) = (tenant.status, next(tenant.status));
    if from == to {
        return Ok(Ok(Change::none(from)));
    }
    let changes = tenant::ActiveModel { status: Set(to), ..Default::default() };
    let update = tenant::Entity::update_many().set(changes).filter(tenant::Column::Id.eq(tenant.id));
    must_change_one(update.exec(&transaction).await?.rows_affected)?;
    let event = EventDraft::new(tenant.id, Action::Updated, "tenants").on(tenant.id).with("fields", vec!["status"]);
    record(transaction, vec![event.with("status", audit::change(word(from), word(to)))]).await?;
    Ok(Ok(Change::made(from, to)))
}

/// The tenant's users, deleted ones included, oldest first. Recorded before they are returned, as a read of the API is.
pub async fn list_users(connection: &DatabaseConnection, external_id: &str) -> Operated<Vec<user::Model>> {
    let (transaction, tenant) = match open(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let users = users_of(tenant.id).order_by_asc(user::Column::Id).all(&transaction).await?;
    let entry = |users: &[user::Model]| {
        let mut event = EventDraft::new(tenant.id, Action::DataAccess, "users");
        event.add_rows(users.iter().map(user::Entity::sort_key));
        event
    };
    let mut entries: Vec<EventDraft> = users.chunks(USERS_OF_AN_ENTRY).map(entry).collect();
    if entries.is_empty() {
        entries.push(entry(&[]));
    }
    record(transaction, entries).await?;
    Ok(Ok(users))
}

/// Gives a live user of the tenant this role.
pub async fn grant_role(
    connection: &DatabaseConnection,
    external_id: &str,
    email: &str,
    role: Role,
) -> Operated<Change<Role>> {
    let (transaction, tenant) = match open_live(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let live = named(tenant.id, email).filter(user::Column::DeletedAt.is_null());
    let Some(user) = live.lock_exclusive().one(&transaction).await? else {
        let deleted = named(tenant.id, email).count(&transaction).await? > 0;
        return Ok(Err(if deleted { Refusal::UserDeleted } else { Refusal::NoUser }));
    };
    if user.role == role {
        return Ok(Ok(Change::none(role)));
    }
    if role != Role::Admin && last_admin::is_last(&transaction, tenant.id, user.id, Loss::Role).await? {
        return Ok(Err(Refusal::LastAdmin));
    }
    let changes = user::ActiveModel { role: Set(role), ..Default::default() };
    let update = user::Entity::update_many().set(changes).filter(this(&user));
    must_change_one(update.exec(&transaction).await?.rows_affected)?;
    let event = EventDraft::new(tenant.id, Action::Updated, "users").on(user.id).with("fields", vec!["role"]);
    record(transaction, vec![event.with("role", audit::change(word(user.role), word(role)))]).await?;
    Ok(Ok(Change::made(user.role, role)))
}

/// Brings back the user with this e-mail address who was deleted last, and gives them this role where one is named. A
/// user who is not deleted stays as they are.
pub async fn restore_user(
    connection: &DatabaseConnection,
    external_id: &str,
    email: &str,
    role: Option<Role>,
) -> Operated<Change<Role>> {
    let (transaction, tenant) = match open_live(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let live = named(tenant.id, email).filter(user::Column::DeletedAt.is_null());
    let live = live.lock_exclusive().one(&transaction).await?;
    let deleted = named(tenant.id, email).filter(user::Column::DeletedAt.is_not_null());
    let deleted = deleted.order_by_desc(user::Column::DeletedAt).order_by_desc(user::Column::Id);
    let deleted = deleted.lock_exclusive().one(&transaction).await?;
    let user = match (live, deleted) {
        (None, None) => return Ok(Err(Refusal::NoUser)),
        (Some(_), Some(_)) => return Ok(Err(Refusal::EmailTaken)),
        (Some(live), None) if role.is_none_or(|role| role == live.role) => return Ok(Ok(Change::none(live.role))),
        (Some(_), None) => return Ok(Err(Refusal::NotDeleted)),
        (None, Some(deleted)) => deleted,
    };
    let (from, to) = (user.role, role.unwrap_or(user.role));
    let changes = user::ActiveModel { role: Set(to), deleted_at: Set(None), ..Default::default() };
    match user::Entity::update_many().set(changes).filter(this(&user)).exec(&transaction).await {
        Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {
            return Ok(Err(Refusal::SubjectTaken));
        }
        done => must_change_one(done?.rows_affected)?,
    }
    let mut event = EventDraft::new(tenant.id, Action::Restored, "users").on(user.id);
    if from != to {
        event = event.with("fields", vec!["role"]).with("role", audit::change(word(from), word(to)));
    }
    record(transaction, vec![event]).await?;
    Ok(Ok(Change::made(from, to)))
}

/// Repairs the tenant's audit log, which does not hold; the entry says why. The system's log can be repaired, too.
pub async fn repair_audit_log(
    connection: &DatabaseConnection,
    external_id: &str,
    reason: &str,
) -> Operated<audit::Repaired> {
    let (transaction, tenant) = match open(connection, external_id).await? {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let Some(repaired) = audit::repair(&transaction, tenant.id, OPERATOR, reason).await? else {
        return Ok(Err(Refusal::ChainHolds));
    };
    transaction.commit().await?;
    Ok(Ok(repaired))
}

/// A transaction of the tenant, which holds its row: commands, and whoever takes an admin away, take turns.
async fn open(connection: &DatabaseConnection, external_id: &str) -> Operated<(Transaction, tenant::Model)> {
    let Some(found) = tenants(connection, Some(external_id)).await?.pop() else {
        return Ok(Err(Refusal::NoTenant));
    };
    // The policies let the owner change rows of the tenant that the transaction names.
    let transaction = database::begin(connection, found.id, Access::Operate).await?;
    Ok(last_admin::lock_tenant(&transaction, found.id)
        .await?
        .map(|tenant| (transaction, tenant))
        .ok_or(Refusal::NoTenant))
}

async fn open_live(connection: &DatabaseConnection, external_id: &str) -> Operated<(Transaction, tenant::Model)> {
    let opened = open(connection, external_id).await?;
    Ok(opened.and_then(|(transaction, tenant)| match tenant.deleted_at {
        None => Ok((transaction, tenant)),
        Some(_) => Err(Refusal::TenantDeleted),
    }))
}

/// Only this tenant's: the policies show the owner, and a superuser, all.
fn users_of(tenant: TenantId) -> Select<user::Entity> {
    user::Entity::find().filter(user::Entity::TENANT.eq(tenant))
}

/// The users with this e-mail address, whatever its case, as `users_live_email` has it.
fn named(tenant: TenantId, email: &str) -> Select<user::Entity> {
    let column = Expr::expr(Func::lower(Expr::col((user::Entity, user::Column::Email))));
    users_of(tenant).filter(column.eq(Func::lower(Expr::val(email))))
}

fn this(user: &user::Model) -> Expr {
    user::Entity::TENANT.eq(user.tenant_id).and(user::Column::Id.eq(user.id))
}

/// A row that is held and cannot be changed is one that a policy keeps from the connection's role.
fn must_change_one(changed: u64) -> Result<(), DbErr> {
    if changed == 1 { Ok(()) } else { Err(DbErr::RecordNotUpdated) }
}

/// Appends the events to the tenant's log, as the operator's, and commits.
async fn record(transaction: Transaction, events: Vec<EventDraft>) -> Result<(), DbErr> {
    let events = events.into_iter().map(|event| event.with("by", OPERATOR)).collect();
    audit::append(&transaction, events).await?;
    transaction.commit().await
}
