//! Which entities belong to a tenant, and by which column.

use crate::entity::{audit_log, document, tenant, user, word};
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, PrimaryKeyTrait};
use time::OffsetDateTime;
use uuid::Uuid;

/// An entity whose rows belong to a tenant.
pub trait OfTenant:
    EntityTrait<PrimaryKey: PrimaryKeyTrait<ValueType = Uuid>, Model: IntoActiveModel<Self::ActiveModel> + Sync>
{
    /// The column that names the tenant.
    const TENANT: Self::Column;
    /// The column of the row's id.
    const ID: Self::Column;
}

/// What the API makes, changes, deletes and restores.
pub trait Resource: OfTenant<ActiveModel: ActiveModelTrait<Entity = Self> + Send> {
    /// What the audit log calls things of this kind.
    const NAME: &'static str;
    /// When the row was made.
    const CREATED_AT: Self::Column;
    /// When the row was deleted.
    const DELETED_AT: Self::Column;
    /// The table's unique indexes, each with the field by which a caller is told of a clash: the column that the index
    /// names last, after the tenant.
    const UNIQUE: &'static [(&'static str, &'static str)];
    /// The field that holds one of a few fixed words. The audit log says what it was and is, which of no other field
    /// it does.
    const WORD: &'static str;

    /// What that field holds.
    fn word(row: &Self::Model) -> String;

    /// Where the row stands in a list, newest first.
    fn place(row: &Self::Model) -> (OffsetDateTime, Uuid);

    /// When the row last changed: what tells its versions apart.
    fn updated_at(row: &Self::Model) -> OffsetDateTime;
}

macro_rules! resource {
    ($module:ident, $tenant:ident, $name:literal, $word:ident, $unique:expr) => {
        impl OfTenant for $module::Entity {
            const TENANT: Self::Column = $module::Column::$tenant;
            const ID: Self::Column = $module::Column::Id;
        }

        impl Resource for $module::Entity {
            const NAME: &'static str = $name;
            const CREATED_AT: Self::Column = $module::Column::CreatedAt;
            const DELETED_AT: Self::Column = $module::Column::DeletedAt;
            const UNIQUE: &'static [(&'static str, &'static str)] = &$unique;
            const WORD: &'static str = stringify!($word);

            fn word(row: &Self::Model) -> String {
                word(row.$word)
            }

            fn place(row: &Self::Model) -> (OffsetDateTime, Uuid) {
                (row.created_at, row.id)
            }

            fn updated_at(row: &Self::Model) -> OffsetDateTime {
                row.updated_at
            }
        }
    };
}

// What identity providers call a tenant is unique, too, but no caller sets it.
resource!(tenant, Id, "tenants", status, []);
resource!(
    user,
    TenantId,
    "users",
    role,
    [("users_live_email", "email"), ("users_live_external_idp_id", "external_idp_id")]
);
resource!(document, TenantId, "documents", status, [("documents_live_file", "storage_key")]);

impl OfTenant for audit_log::Entity {
    const TENANT: Self::Column = audit_log::Column::TenantId;
    const ID: Self::Column = audit_log::Column::Id;
}
