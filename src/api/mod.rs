//! The HTTP API: request and response types, handlers, and their OpenAPI descriptions.

pub(crate) mod root;
pub(crate) mod v1;
