//! Bulkhead: a multi-tenant HTTP API for health data.
//!
//! Arrows point inwards: [`cli`] -> [`server`] -> [`api`] -> [`auth`] -> [`tenancy`] -> [`audit`] -> [`entity`];
//! `clock`, [`config`], [`database`], [`error`], `error_chain`, `json`, [`telemetry`] and `text` depend on none of them.

pub mod administration;
pub mod app;
pub mod audit;
pub mod auth;
mod auth_errors;
pub mod cli;
mod clock;
pub mod config;
pub mod context;
pub mod database;
mod endpoints;
pub mod entity;
pub mod error;
mod error_chain;
mod error_response;
mod input;
mod json;
pub mod lifecycle;
mod pages;
mod readiness;
mod resource;
mod resources;
pub mod server;
mod single_flight;
pub mod telemetry;
pub mod tenancy;
mod text;
