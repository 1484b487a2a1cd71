//! Bulkhead: a multi-tenant HTTP API for health data.
//!
//! Arrows point inwards: [`cli`] -> [`server`] -> [`api`] -> [`auth`] -> [`tenancy`] -> [`audit`] -> [`entity`];
//! `clock`, [`config`], [`database`], [`error`], `error_chain`, `json`, [`telemetry`] and `text` depend on none of them.

pub mod api;
pub mod audit;
pub mod auth;
mod auth_errors;
pub mod cli;
mod clock;
pub mod config;
pub mod database;
pub mod entity;
pub mod error;
mod error_chain;
mod json;
pub mod server;
pub mod telemetry;
pub mod tenancy;
mod text;
