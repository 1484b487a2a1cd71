//! All routes, their OpenAPI document, and the layers around them.

use super::{AppState, middleware};
use crate::api;
use axum::Router;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Bulkhead", description = "A multi-tenant API for health data."),
    tags((name = "health", description = "Whether this instance lives, has started, and can serve."))
)]
struct Header;

fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Header::openapi()).nest("/api/v1", api::v1::routes())
}

/// The OpenAPI document of every route.
#[must_use]
pub fn api_document() -> Document {
    routes().split_for_parts().1
}

/// The whole application as a service.
pub fn router(state: AppState) -> Router {
    let (router, document) = routes().split_for_parts();
    let mut router = router.route("/", axum::routing::get(api::root::root));
    if state.settings.docs_enabled {
        router = router.merge(SwaggerUi::new("/docs").url("/openapi.json", document));
    }
    middleware::wrap(router, &state).with_state(state)
}
