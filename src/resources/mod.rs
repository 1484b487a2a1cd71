//! The resources of the API, a file each: their wire types and their rules.

pub(crate) mod audit_logs;
mod documents;
pub(crate) mod tenants;
mod users;
