//! What this instance was built from.

use crate::app::AppState;
use crate::resource::PublicErrors;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(crate) struct Build {
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// The commit that the image was built from, as its label says; null outside an image.
    #[schema(example = "3d3c42e5aac5ba805825da76410c181273ba90b1")]
    source_revision: Option<String>,
    /// SHA-256 of the Cargo.lock that the binary was built with.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    cargo_lock_sha256: &'static str,
    /// SHA-256 of the flake.lock beside it.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    flake_lock_sha256: &'static str,
    /// The newest migration of this build: the schema it was made for.
    #[schema(example = "m20261101_000001_create_tenants")]
    schema_version: String,
}

/// What this instance was built from: anyone can rebuild it and compare.
#[utoipa::path(
    get, path = "/version", operation_id = "getVersion", tag = "health", security(()),
    responses((status = 200, body = Build, description = "What it was built from"), PublicErrors)
)]
pub(crate) async fn version(State(state): State<AppState>) -> Json<Build> {
    Json(Build {
        version: env!("CARGO_PKG_VERSION"),
        source_revision: state.settings.source_revision.clone(),
        cargo_lock_sha256: env!("CARGO_LOCK_SHA256"),
        flake_lock_sha256: env!("FLAKE_LOCK_SHA256"),
        schema_version: state.runner.newest().to_owned(),
    })
}
