//! The operations that belong to no resource, and the routes of all operations.

mod health;
mod login;
pub(crate) mod root;
mod version;

pub(crate) use health::passing_checks;

use crate::app::AppState;
use crate::resources;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of version 1 of the API, under `/api/v1`.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::startup))
        .routes(routes!(version::version))
        .routes(routes!(login::login))
        .routes(routes!(login::validate))
        .merge(without_token())
        .merge(resources::routes())
}

/// The longest body of a caller who needs no token, in bytes: the parts of a login, of which a token is the longest.
const BODY_BYTES_MAX_WITHOUT_TOKEN: usize = 64 * 1024;

/// Operations that read a body before they know who calls.
fn without_token() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(login::callback))
        .routes(routes!(login::logout))
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX_WITHOUT_TOKEN))
}
