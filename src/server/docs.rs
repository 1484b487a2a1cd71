//! `/docs`: Swagger UI on the OpenAPI document, all of it inside the binary.

use crate::app::AppState;
use crate::config::{Environment, Settings};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get};
use std::sync::Arc;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

const PAGE: &str = include_str!("docs/index.html");
const SCRIPT: &str = include_str!("docs/page.js");
const STYLE: &str = include_str!("docs/page.css");

/// What the page takes of Swagger UI's own files.
const ASSETS: [&str; 3] = ["favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css"];

/// The page, what it loads, and the document that it shows.
pub(super) fn routes(settings: &Settings, document: &OpenApi) -> Router<AppState> {
    // A browser keeps it in local storage, where it outlives the window: nothing for a token to patients' data.
    let keep_token = settings.environment == Environment::Development;
    let page = Bytes::from(PAGE.replace("{{persist_authorization}}", if keep_token { "true" } else { "false" }));
    // Once: it is long, and whoever asks for it shows no token.
    let document = Bytes::from(serde_json::to_vec(document).expect("texts, numbers and lists are JSON"));
    Router::new()
        .route("/openapi.json", file("application/json", document))
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", file("text/html; charset=utf-8", page))
        .route("/docs/page.js", file("text/javascript; charset=utf-8", Bytes::from_static(SCRIPT.as_bytes())))
        .route("/docs/page.css", file("text/css; charset=utf-8", Bytes::from_static(STYLE.as_bytes())))
        .route("/docs/{file}", get(asset))
}

fn file(media_type: &'static str, content: Bytes) -> MethodRouter<AppState> {
    get(async move || ([(CONTENT_TYPE, media_type)], content))
}

async fn asset(Path(name): Path<String>) -> Response {
    let known = ASSETS.contains(&name.as_str());
    let found =
        known.then(|| utoipa_swagger_ui::serve(&name, Arc::new(Config::from("")))).and_then(Result::ok).flatten();
    let Some(file) = found else { return StatusCode::NOT_FOUND.into_response() };
    let encoding: Option<[(HeaderName, &str); 1]> = file.gzpipped.then_some([(CONTENT_ENCODING, "gzip")]);
    // utoipa-swagger-ui names the type alone.
    let is_text = !file.content_type.starts_with("image/");
    let charset = if is_text { "; charset=utf-8" } else { "" };
    ([(CONTENT_TYPE, format!("{}{charset}", file.content_type))], encoding, file.bytes).into_response()
}
