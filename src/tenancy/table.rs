//! Which tables belong to tenants, and by which columns.

use crate::entity::{audit_log, tenant, user};
use crate::ids::RowId;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, PrimaryKeyTrait};
use time::OffsetDateTime;
use uuid::Uuid;

/// A table whose rows belong to a tenant.
pub trait TenantScoped:
    EntityTrait<PrimaryKey: PrimaryKeyTrait<ValueType: RowId>, Model: IntoActiveModel<Self::ActiveModel> + Sync>
{
    /// The column that names the tenant.
    const TENANT: Self::Column;
    /// The column of the row's id.
    const ID: Self::Column;
}

/// The id of a row of this table.
pub type IdOf<T> = <<T as EntityTrait>::PrimaryKey as PrimaryKeyTrait>::ValueType;

/// A table whose rows the API makes, changes, deletes and restores. [`tenant_table!`](crate::tenant_table) implements it.
pub trait Table: TenantScoped<ActiveModel: ActiveModelTrait<Entity = Self> + Send + Sync> {
    /// The table's name, which the audit log uses as `resource_type`.
    const NAME: &'static str;
    /// When the row was made.
    const CREATED_AT: Self::Column;
    /// When the row was deleted.
    const DELETED_AT: Self::Column;
    /// The column of fixed words, if there is one, whose change the audit log shows: what it was and what it is. Of other
    /// columns it shows the name alone.
    const AUDITED: Option<Self::Column>;
    /// The table's unique indexes, each with the field that a conflict is reported for: the last column of the index.
    const UNIQUE: &'static [(&'static str, &'static str)];

    /// The position of the row in a list, newest first.
    fn sort_key(row: &Self::Model) -> (OffsetDateTime, Uuid);

    /// When the row last changed, which tells its versions apart.
    fn updated_at(row: &Self::Model) -> OffsetDateTime;
}

/// Implements [`TenantScoped`] and [`Table`] for the sea-orm entity of a module, whose table has the columns `id`,
/// `created_at`, `updated_at` and `deleted_at`.
#[macro_export]
macro_rules! tenant_table {
    ($module:ident, $name:literal, tenant: $tenant:ident, audited: $audited:expr, unique: $unique:expr) => {
        impl $crate::tenancy::TenantScoped for $module::Entity {
            const TENANT: Self::Column = $module::Column::$tenant;
            const ID: Self::Column = $module::Column::Id;
        }

        impl $crate::tenancy::Table for $module::Entity {
            const NAME: &'static str = $name;
            const CREATED_AT: Self::Column = $module::Column::CreatedAt;
            const DELETED_AT: Self::Column = $module::Column::DeletedAt;
            const AUDITED: Option<Self::Column> = $audited;
            const UNIQUE: &'static [(&'static str, &'static str)] = &$unique;

            fn sort_key(row: &Self::Model) -> (::time::OffsetDateTime, ::uuid::Uuid) {
                (row.created_at, row.id.into())
            }

            fn updated_at(row: &Self::Model) -> ::time::OffsetDateTime {
                row.updated_at
            }
        }
    };
}

// `external_id` is unique, too, but no caller sets it.
tenant_table!(tenant, "tenants", tenant: Id, audited: Some(tenant::Column::Status), unique: []);
tenant_table!(
    user, "users", tenant: TenantId, audited: Some(user::Column::Role),
    unique: [("users_live_email", "email"), ("users_live_external_idp_id", "external_idp_id")]
);

impl TenantScoped for audit_log::Entity {
    const TENANT: Self::Column = audit_log::Column::TenantId;
    const ID: Self::Column = audit_log::Column::Id;
}
