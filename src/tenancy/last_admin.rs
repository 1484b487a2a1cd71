//! A tenant keeps an admin: whoever takes the last one away is refused.

use super::table::{Table, TenantScoped};
use crate::database::Transaction;
use crate::entity::tenant;
use crate::entity::user::{self, Role};
use crate::ids::{TenantId, UserId};
use sea_orm::sea_query::LockType;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QuerySelect, Select};

/// What a user is about to lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The role, or everything: the user is demoted or deleted.
    Role,
    /// The identity provider's name, without which nobody can log in as this user.
    Subject,
}

/// Whether the tenant has no admin left after this loss; or none who can log in, if there is one now. It stays so until
/// the transaction ends, since others who take an admin away wait for that. Begin with it: the locks are taken in the
/// order tenant, user, end of the audit log.
pub(crate) async fn is_last(
    transaction: &Transaction,
    tenant: TenantId,
    user: UserId,
    loss: Loss,
) -> Result<bool, DbErr> {
    lock_tenant(transaction, tenant).await?;
    let Some(user) = admins(tenant).filter(user::Column::Id.eq(user)).one(transaction).await? else {
        return Ok(false);
    };
    let others = admins(tenant).filter(user::Column::Id.ne(user.id));
    let left = match (user.external_idp_id, loss) {
        (Some(_), _) => others.filter(user::Column::ExternalIdpId.is_not_null()),
        (None, Loss::Role) => others,
        (None, Loss::Subject) => return Ok(false),
    };
    Ok(left.count(transaction).await? == 0)
}

/// The tenant, which others may not hold at the same time.
///
/// FOR NO KEY UPDATE conflicts with itself, but not with the FOR KEY SHARE by which rows that refer to the tenant are
/// inserted (postgresql.org/docs/current/explicit-locking.html, "Row-Level Locks"). On SQLite a transaction that writes
/// has the file to itself from its beginning.
pub(crate) async fn lock_tenant(transaction: &Transaction, tenant: TenantId) -> Result<Option<tenant::Model>, DbErr> {
    tenant::Entity::find_by_id(tenant).lock(LockType::NoKeyUpdate).one(transaction).await
}

/// The tenant's live admins, by their rows. A role that a token's claim gives is in no row.
fn admins(tenant: TenantId) -> Select<user::Entity> {
    user::Entity::find()
        .filter(user::Entity::TENANT.eq(tenant))
        .filter(user::Entity::DELETED_AT.is_null())
        .filter(user::Column::Role.eq(Role::Admin))
}
