//! All routes, their OpenAPI document, and the layers around them.

use super::middleware;
use crate::app::AppState;
use crate::endpoints;
use axum::Router;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bulkhead",
        description = "A multi-tenant API for health data.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    servers((url = "/", description = "This instance")),
    modifiers(&Bearer),
    tags(
        (name = "health", description = "Whether this instance lives, has started, and can serve."),
        (name = "auth", description = "Login and logout at the identity provider, and what a token is worth."),
        (name = "tenant", description = "The caller's own tenant."),
        (name = "audit", description = "Who did what in the caller's tenant, in a chain that shows tampering."),
    )
)]
struct Header;

/// Declares how callers prove who they are.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Header::openapi()).nest("/api/v1", endpoints::routes())
}

/// The OpenAPI document of every route.
#[must_use]
pub fn api_document() -> Document {
    routes().split_for_parts().1
}

/// The whole application as a service.
pub fn router(state: AppState) -> Router {
    let (router, document) = routes().split_for_parts();
    let mut router = router.route("/", axum::routing::get(endpoints::root::root));
    if state.settings.docs_enabled {
        // Without the bar above, which is for choosing among documents: deploy/swagger-ui.md.
        let page = SwaggerUi::new("/docs").config(Config::default().use_base_layout());
        router = router.merge(page.url("/openapi.json", document));
    }
    middleware::wrap(router, &state).with_state(state)
}
