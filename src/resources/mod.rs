//! The resources of the API, a file each: its table, its wire types and its rules.

mod audit_logs;
mod audit_proofs;
pub mod documents;
mod tenants;
mod users;

use crate::app::AppState;
use crate::entity::user;
use crate::resource;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of all resources.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(tenants::get, tenants::update))
        .merge(resource::routes::<user::Entity>())
        .merge(resource::routes::<documents::Entity>())
        // scripts/new-resource adds resources above this line.
        .routes(routes!(audit_logs::list))
        .routes(routes!(audit_logs::get))
        .routes(routes!(audit_proofs::checkpoint))
        .routes(routes!(audit_proofs::proof))
}
