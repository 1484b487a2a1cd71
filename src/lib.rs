//! Bulkhead: a multi-tenant HTTP API for health data.
//!
//! Imports point downwards, from a layer to those below it; docs/architecture.md says what each module is for:
//!
//! 1. [`cli`], `fuzzing`
//! 2. [`server`]
//! 3. [`administration`], `endpoints`
//! 4. [`resources`]
//! 5. `resource`
//! 6. [`context`]
//! 7. [`app`]
//! 8. [`tenancy`]
//! 9. [`audit`], `auth_errors`, `error_response`, `input`, `pages`
//! 10. [`error`]
//! 11. [`auth`], [`database`], [`telemetry`]
//! 12. [`config`]
//! 13. [`entity`], `tenant_limit`
//! 14. [`http_client`], [`note`], [`subject_names`]
//! 15. `clock`, `error_chain`, [`ids`], `invocation`, `json`, [`lifecycle`], [`merkle`], [`metrics`], `readiness`, `single_flight`, `text`
//! 16. [`traces`]

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
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http_client;
pub mod ids;
mod input;
mod invocation;
mod json;
pub mod lifecycle;
pub mod merkle;
pub mod metrics;
pub mod note;
mod pages;
mod readiness;
mod resource;
pub mod resources;
pub mod server;
mod single_flight;
pub mod subject_names;
pub mod telemetry;
pub mod tenancy;
mod tenant_limit;
mod text;
pub mod traces;
