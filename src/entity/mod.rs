//! The tables as sea-orm entities; see the migrations for what the database enforces.

pub mod audit_log;
pub mod document;
pub mod tenant;
pub mod user;
