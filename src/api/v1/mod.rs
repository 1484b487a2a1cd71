//! Version 1 of the API, under `/api/v1`.

mod audit_logs;
mod auth;
mod documents;
pub(super) mod health;
mod resource;
pub(super) mod rows;
mod tenant;
mod users;
mod version;

pub(crate) use users::is_email;

use crate::server::AppState;
use axum::routing::post;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Operations whose address ends in `:restore`, for which the router has no pattern: it takes them as POST to the row
/// itself.
#[derive(OpenApi)]
#[openapi(paths(users::restore, documents::restore))]
struct Restoring;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Restoring::openapi())
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::startup))
        .routes(routes!(version::version))
        .routes(routes!(auth::login))
        .routes(routes!(auth::validate))
        .merge(without_token())
        .routes(routes!(tenant::get, tenant::update))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::update, users::delete))
        .routes(routes!(documents::list, documents::create))
        .routes(routes!(documents::get, documents::update, documents::delete))
        .routes(routes!(audit_logs::list))
        .routes(routes!(audit_logs::get))
        .route("/users/{id}", post(users::restore))
        .route("/documents/{id}", post(documents::restore))
}

/// The longest body of a caller who needs no token, in bytes: the parts of a login, of which a token is the longest.
const LONGEST_WITHOUT_TOKEN: usize = 64 * 1024;

/// Operations that read a body before they know who calls.
fn without_token() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(auth::callback))
        .routes(routes!(auth::logout))
        .layer(RequestBodyLimitLayer::new(LONGEST_WITHOUT_TOKEN))
}
