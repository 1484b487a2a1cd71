//! The tables as sea-orm entities; see the migrations for what the database enforces.

pub mod audit_checkpoint;
pub mod audit_log;
pub mod audit_node;
mod json_text;
pub mod tenant;
pub mod user;

pub use json_text::JsonText;

use sea_orm::ActiveEnum;

/// What the database calls a value of an enumeration, such as `admin`.
#[must_use]
pub fn word<E: ActiveEnum<Value = String>>(value: E) -> String {
    value.into_value()
}
