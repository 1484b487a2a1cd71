//! The HTTP API: request and response types, handlers, and their OpenAPI descriptions.

mod body;
pub(crate) mod root;
pub(crate) mod v1;

pub(crate) use v1::health::DatabaseChecks;
pub(crate) use v1::is_email;
pub(crate) use v1::rows::Pages;
