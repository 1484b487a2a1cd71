//! Ids of rows: a type for each table, so that no id fits where another table's is meant.

use std::fmt;
use uuid::Uuid;

/// The id of a row of some table.
pub trait RowId: Copy + Send + Sync + fmt::Debug + From<Uuid> + Into<Uuid> + Into<sea_orm::Value> {}

/// Declares the type of a table's ids: `row_id!(/** The id of a patient. */ PatientId);`.
#[macro_export]
macro_rules! row_id {
    ($(#[$doc:meta])+ $name:ident) => {
        $(#[$doc])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            ::serde::Serialize, ::serde::Deserialize, ::sea_orm::DeriveValueType,
        )]
        #[serde(transparent)]
        pub struct $name(pub ::uuid::Uuid);

        impl $crate::ids::RowId for $name {}

        impl From<::uuid::Uuid> for $name {
            fn from(id: ::uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for ::uuid::Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                self.0.fmt(f)
            }
        }

        // sea-orm asks for it of every primary key; no id is a number.
        impl ::sea_orm::TryFromU64 for $name {
            fn try_from_u64(number: u64) -> Result<Self, ::sea_orm::DbErr> {
                ::uuid::Uuid::try_from_u64(number).map(Self)
            }
        }
    };
}

row_id!(
    /// The id of a tenant.
    TenantId
);
row_id!(
    /// The id of a user.
    UserId
);
row_id!(
    /// The id of an entry of the audit log.
    AuditLogId
);
