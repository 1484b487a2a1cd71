//! All routes, their OpenAPI document, and the layers around them.

use super::{docs, middleware};
use crate::app::AppState;
use crate::{endpoints, resource};
use axum::Router;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bulkhead",
        description = DESCRIPTION,
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    servers((url = "/", description = "This instance")),
    modifiers(&Bearer, &ErrorExamples),
    tags(
        (name = "health", description = "Whether this instance lives, has started, and can serve."),
        (name = "auth", description = "Login and logout at the identity provider, and what a token is worth."),
        (name = "tenant", description = "The caller's own tenant."),
        (name = "audit", description = "Who did what in the caller's tenant, in a chain that shows tampering."),
    )
)]
struct Header;

/// What the documentation begins with.
const DESCRIPTION: &str = "A multi-tenant API for health data.\n\n\
    Most operations need a token: press *Authorize* and paste it. In development, `bulkhead dev-token` prints one \
    (`cargo run -- dev-token` in the repository). Elsewhere it comes from your identity provider: \
    [docs/auth.md](https://github.com/bulkhead-rs/bulkhead/blob/main/docs/auth.md).";

/// Declares how callers prove who they are.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("The token alone, as `bulkhead dev-token` prints it: the word Bearer is added."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// A body of every error, which the responses refer to.
struct ErrorExamples;

impl Modify for ErrorExamples {
    fn modify(&self, document: &mut Document) {
        let examples = resource::error_examples().map(|(code, example)| (code, example.into()));
        document.components.get_or_insert_default().examples.extend(examples);
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
        router = router.merge(docs::routes(&state.settings, &document));
    }
    middleware::wrap(router, &state).with_state(state)
}
