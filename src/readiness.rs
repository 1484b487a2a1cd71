//! What readiness knows of the database, for all probes that ask at the same time.

use serde::Serialize;
use utoipa::ToSchema;

/// One check of readiness.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Check {
    /// `ok`, or what is the matter.
    #[schema(example = "ok")]
    pub(crate) status: &'static str,
    /// How long the check took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_ms: Option<f64>,
    /// The error's code; never a driver's message.
    #[schema(example = json!(null))]
    pub(crate) error: Option<&'static str>,
}

/// The checks of the database.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseChecks {
    pub(crate) database: Check,
    pub(crate) schema: Check,
    pub(crate) isolation: Check,
}
