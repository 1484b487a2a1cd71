//! `/`: where to go from here.

use crate::app::AppState;
use axum::Json;
use axum::extract::State;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Root {
    name: &'static str,
    version: &'static str,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    docs: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openapi: Option<&'static str>,
}

pub(crate) async fn root(State(state): State<AppState>) -> Json<Root> {
    let docs = state.settings.docs_enabled;
    Json(Root {
        name: "bulkhead",
        version: env!("CARGO_PKG_VERSION"),
        health: "/api/v1/health/ready",
        docs: docs.then_some("/docs"),
        openapi: docs.then_some("/openapi.json"),
    })
}
