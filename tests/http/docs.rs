//! The documentation page and document: served from inside the binary, shown by a real browser.

use crate::browser::{Browser, final_document};
use crate::support::{LocalServer, Serves, key_file};
use crate::{must, ready};
use bulkhead::error::ErrorCode;
use serde_json::{Value, json};
use std::path::Path;
use test_support::{Database, Server};

#[tokio::test]
async fn openapi_is_the_same_from_cli_and_http() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[]).await;
    let printed: Value = serde_json::from_str(&must(&["openapi"], &[]).await).unwrap();
    assert_eq!(server.json("/openapi.json").await, (200, printed));
}

/// A changed API shows in the difference of this file.
#[tokio::test]
async fn the_document_is_the_one_that_is_checked_in() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/openapi.json");
    let printed = must(&["openapi"], &[]).await;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &printed).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == printed,
        "UPDATE_DOCS=1 cargo test --test http docs writes it anew"
    );
}

/// tests/openapi/versions has a validator look at it.
#[tokio::test]
async fn tools_that_do_not_know_openapi_3_1_get_3_0() {
    let [older, newest, unasked] =
        [&["openapi", "--as", "3.0"][..], &["openapi", "--as", "3.1"], &["openapi"]].map(|command| must(command, &[]));
    let (older, newest) = (older.await, newest.await);
    assert_eq!(newest, unasked.await);
    let older: Value = serde_json::from_str(&older).unwrap();
    assert_eq!(older["openapi"], "3.0.3");
    let newest: Value = serde_json::from_str(&newest).unwrap();
    let ids = |document: &Value| -> Vec<Value> {
        operations(document).into_iter().map(|(_, operation)| operation["operationId"].clone()).collect()
    };
    assert_eq!(ids(&older), ids(&newest));
    let ip = "/components/schemas/AuditLog/properties/ip";
    assert_eq!(newest.pointer(ip).unwrap()["type"], json!(["string", "null"]));
    assert_eq!(older.pointer(ip).unwrap(), &json!({"type": "string", "nullable": true, "example": "203.0.113.9"}));
}

#[tokio::test]
async fn in_production_there_are_no_docs_unless_asked_for() {
    let (database, production) = (Database::migrated_sqlite().await, ("ENVIRONMENT", "production"));
    let server = LocalServer::without_provider(&database, &[production]).await;
    for path in ["/docs", "/docs/", "/openapi.json"] {
        assert_eq!(server.json(path).await.0, 404, "{path}");
    }
    let server = LocalServer::without_provider(&database, &[production, ("DOCS_ENABLED", "true")]).await;
    assert_eq!(server.json("/openapi.json").await.0, 200);
}

#[tokio::test]
async fn docs_page_needs_no_other_host() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let Some(page) = final_document(&format!("http://localhost:{}/docs", server.port)).await else { return };
    for operation in ["/api/v1/health/live", "/api/v1/health/ready", "/api/v1/health/startup"] {
        // As the viewer renders an operation, not as the document spells it.
        assert!(page.contains(&format!("data-path=\"{operation}\"")), "{operation} is not shown:\n{page}");
    }
}

#[tokio::test]
async fn every_text_of_the_page_names_its_charset() {
    let database = Database::migrated_sqlite().await;
    let server = ready(&database, &[]).await;
    let mut types = Vec::new();
    for file in ["", "page.js", "page.css", "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"] {
        let answer = reqwest::get(format!("http://localhost:{}/docs/{file}", server.port)).await.unwrap();
        assert_eq!(answer.status(), 200, "{file}");
        types.push(answer.headers()["content-type"].to_str().unwrap().to_owned());
    }
    let (picture, texts) = types.split_last().unwrap();
    assert_eq!(picture, "image/png");
    assert!(texts.iter().all(|media_type| media_type.ends_with("; charset=utf-8")), "{types:?}");
}

/// The operations of the document: `POST /api/v1/users`, and how it is described.
fn operations(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let named = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().clone().into_iter();
        let path = path.clone();
        methods
            .map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
            .collect::<Vec<_>>()
    };
    paths.flat_map(named).collect()
}

#[tokio::test]
async fn every_error_of_an_operation_has_its_own_example() {
    let document: Value = serde_json::from_str(&must(&["openapi"], &[]).await).unwrap();
    let mut seen = 0;
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &response["content"]["application/json"];
            if content["schema"]["$ref"] != "#/components/schemas/ErrorBody" {
                continue;
            }
            let description = response["description"].as_str().unwrap();
            let examples = content["examples"].as_object().unwrap_or_else(|| panic!("{name} {status} has no examples"));
            let described = ErrorCode::ALL.iter().filter(|code| description.contains(code.code()));
            assert_eq!(described.count(), examples.len(), "{name} {status}: {description}");
            for (code, example) in examples {
                let known = ErrorCode::ALL.iter().find(|known| known.code() == code).unwrap();
                assert!(
                    description.contains(&format!("{code}: {}", known.message())),
                    "{name} {status}: {description}"
                );
                let example = document.pointer(example["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
                let error = &example["value"]["error"];
                assert_eq!(
                    (&error["code"], &error["message"]),
                    (&json!(code), &json!(known.message())),
                    "{name} {status}"
                );
                assert!(error["request_id"].is_string(), "{error}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

/// Swagger UI shows a summary as it is written, and only descriptions as Markdown.
#[tokio::test]
async fn summaries_are_plain_and_short() {
    let document: Value = serde_json::from_str(&must(&["openapi"], &[]).await).unwrap();
    for (name, operation) in operations(&document) {
        let summary = operation["summary"].as_str().unwrap();
        assert!(!summary.contains(['`', '*', '\n']) && summary.len() <= 80, "{name}: {summary}");
    }
}

/// A server that accepts the tokens of `bulkhead dev-token`, and such a token.
async fn with_token<'d>(database: &'d Database, folder: &Path) -> (Server<'d>, String) {
    let key = key_file(folder);
    let server = ready(database, &[("DEVELOPMENT_KEY_FILE", &key)]).await;
    let token = must(&["dev-token"], &[("DATABASE_URL", &database.url), ("DEVELOPMENT_KEY_FILE", &key)]).await;
    (server, token.trim().to_owned())
}

/// The page once it shows its operations.
async fn open_docs(server: &Server<'_>, width: u32) -> Option<Browser> {
    let mut page = Browser::open(&format!("http://localhost:{}/docs", server.port), width).await?;
    page.wait_for("document.querySelectorAll('.opblock').length > 20").await;
    Some(page)
}

/// Opens an operation, and waits until its responses are there.
async fn open_operation(page: &mut Browser, id: &str) {
    page.evaluate(&format!("document.querySelector('[id$=\"-{id}\"] .opblock-summary-control').click()")).await;
    page.wait_for(&format!("document.querySelector('[id$=\"-{id}\"] .responses-table') !== null")).await;
}

/// Pastes a token as people do.
async fn authorize(page: &mut Browser, token: &str) {
    page.evaluate("document.querySelector('.auth-wrapper .authorize').click()").await;
    page.wait_for("document.querySelector('.auth-container input') !== null").await;
    page.evaluate(&format!(
        "(() => {{
            const input = document.querySelector('.auth-container input');
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, {});
            input.dispatchEvent(new Event('input', {{ bubbles: true }}));
            input.dispatchEvent(new Event('change', {{ bubbles: true }}));
        }})()",
        json!(token)
    ))
    .await;
    page.evaluate("document.querySelector('.auth-container button.authorize').click()").await;
    page.wait_for("document.querySelector('.auth-container button.btn-done') !== null && document.querySelector('.auth-container input') === null").await;
    page.evaluate("document.querySelector('.auth-container button.btn-done').click()").await;
}

/// "Try it out" with what the page suggests; the status and the body.
async fn try_out(page: &mut Browser, id: &str) -> (String, String) {
    open_operation(page, id).await;
    let operation = format!("document.querySelector('[id$=\"-{id}\"]')");
    page.evaluate(&format!("{operation}.querySelector('.try-out__btn').click()")).await;
    page.wait_for(&format!("{operation}.querySelector('button.execute') !== null")).await;
    page.evaluate(&format!("{operation}.querySelector('button.execute').click()")).await;
    let live = format!("{operation}.querySelector('.live-responses-table tbody')");
    page.wait_for(&format!("{live} && {live}.querySelector('.response-col_status') !== null")).await;
    let status =
        page.evaluate(&format!("{live}.querySelector('.response-col_status').innerText.trim().slice(0, 3)")).await;
    let body = page.evaluate(&format!("{live}.innerText")).await;
    (status.as_str().unwrap().to_owned(), body.as_str().unwrap().to_owned())
}

#[tokio::test]
async fn examples_work_when_they_are_tried_out() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let (server, token) = with_token(&database, folder.path()).await;
    let Some(mut page) = open_docs(&server, 1280).await else { return };
    let (status, body) = try_out(&mut page, "validateToken").await;
    assert!(status == "401" && body.contains("AUTH_010"), "{status}: {body}");
    page.go(&format!("http://localhost:{}/docs/", server.port)).await;
    page.wait_for("document.querySelectorAll('.opblock').length > 20").await;
    // The word is not part of the token; pasted with it, it does no harm.
    authorize(&mut page, &format!("Bearer {token}")).await;
    for (operation, expected) in [
        ("validateToken", "200"),
        ("createUser", "201"),
        ("createDocument", "201"),
        ("updateTenant", "200"),
        ("listUsers", "200"),
        ("listDocuments", "200"),
        ("listAuditLogs", "200"),
    ] {
        let (status, body) = try_out(&mut page, operation).await;
        assert_eq!(status, expected, "{operation}: {body}");
    }
    let document = try_out_examples(&server, &token).await;
    assert_eq!(document["filename"], "scan-2.pdf");
}

/// Updates a row of each resource with the example of the document; the document.
async fn try_out_examples(server: &Server<'_>, token: &str) -> Value {
    let document: Value = serde_json::from_str(&must(&["openapi"], &[]).await).unwrap();
    let mut last = Value::Null;
    for (list, schema) in [("users", "UpdateUser"), ("documents", "UpdateDocument")] {
        let client = reqwest::Client::new();
        let url = format!("{}/api/v1/{list}", server.base);
        let rows: Value = client.get(&url).bearer_auth(token).send().await.unwrap().json().await.unwrap();
        let id = rows["items"][0]["id"].as_str().unwrap();
        let example = &document["components"]["schemas"][schema]["example"];
        let answer = client.patch(format!("{url}/{id}")).bearer_auth(token).json(example).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{schema}: {example}");
        last = answer.json().await.unwrap();
    }
    last
}

#[tokio::test]
async fn docs_page_says_how_to_get_a_token_and_loads_no_other_document() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let Some(mut page) = open_docs(&server, 1280).await else { return };
    assert_eq!(page.evaluate("document.title").await, "Bulkhead API");
    let text = page.evaluate("document.querySelector('.information-container').innerText").await;
    assert!(text.as_str().unwrap().contains("bulkhead dev-token"), "{text}");
    let link = page.evaluate("document.querySelector('.information-container a[href$=\"docs/auth.md\"]').href").await;
    assert!(link.as_str().unwrap().starts_with("https://github.com/"), "{link}");
    assert_eq!(
        page.evaluate("document.querySelectorAll('.topbar, .download-url-input, input[type=text]').length").await,
        0
    );
    page.go(&format!("http://localhost:{}/docs/?url=https://example.org/openapi.json", server.port)).await;
    page.wait_for("document.querySelectorAll('.opblock').length > 20").await;
    page.evaluate("document.querySelector('.auth-wrapper .authorize').click()").await;
    let text = page.wait_for("document.querySelector('.auth-container')?.innerText").await;
    assert!(text.as_str().unwrap().contains("the word Bearer is added"), "{text}");
}

#[tokio::test]
async fn docs_page_fits_a_phone() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let Some(mut page) = open_docs(&server, 390).await else { return };
    for operation in ["createDocument", "listAuditLogs", "getReadiness"] {
        open_operation(&mut page, operation).await;
    }
    page.evaluate("document.querySelector('[id$=\"-createDocument\"] .try-out__btn').click()").await;
    let widths = "[window.innerWidth, document.documentElement.scrollWidth]";
    assert_eq!(page.evaluate(widths).await, json!([390, 390]));
    // What is cut off is not readable, either.
    let cut = "[...document.querySelectorAll('.swagger-ui *')].filter(element => {
        const box = element.getBoundingClientRect();
        return box.width > 0 && box.right > 391 && !element.closest('svg, pre, .microlight');
    }).map(element => element.className || element.tagName).slice(0, 9)";
    assert_eq!(page.evaluate(cut).await, json!([]));
    page.evaluate("document.querySelector('.auth-wrapper .authorize').click()").await;
    page.wait_for("document.querySelector('.auth-container input') !== null").await;
    let dialog = page.evaluate("document.querySelector('.modal-ux').getBoundingClientRect().right").await;
    assert!(dialog.as_f64().unwrap() <= 390.0, "{dialog}");
}

#[tokio::test]
async fn errors_of_an_operation_take_one_row_each_and_open_to_their_examples() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let Some(mut page) = open_docs(&server, 1280).await else { return };
    open_operation(&mut page, "createDocument").await;
    let height = page.evaluate("document.querySelector('[id$=\"-createDocument\"]').offsetHeight").await;
    assert!(height.as_f64().unwrap() < 2500.0, "{height} px");
    let row = "document.querySelector('[id$=\"-createDocument\"] tr[data-code=\"403\"]')";
    page.evaluate(&format!("{row}.querySelector('button').click()")).await;
    let example = page.wait_for(&format!("{row}.nextElementSibling.querySelector('.example')?.innerText")).await;
    assert!(example.as_str().unwrap().contains("AUTH_005"), "{example}");
    let choices =
        page.evaluate(&format!("{row}.nextElementSibling.querySelectorAll('.examples-select option').length")).await;
    assert_eq!(choices, 4, "each error of the status");
}

#[tokio::test]
async fn token_survives_a_reload_in_development_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::sqlite();
    let (server, token) = with_token(&database, folder.path()).await;
    let unlocked = "document.querySelector('.auth-wrapper .authorize.locked') !== null";
    let Some(mut page) = open_docs(&server, 1280).await else { return };
    authorize(&mut page, &token).await;
    page.go(&format!("http://localhost:{}/docs/", server.port)).await;
    page.wait_for("document.querySelectorAll('.opblock').length > 20").await;
    page.wait_for(unlocked).await;
    let (status, body) = try_out(&mut page, "validateToken").await;
    assert_eq!(status, "200", "{body}");

    let database = Database::sqlite();
    let staging = ready(&database, &[("ENVIRONMENT", "staging")]).await;
    let Some(mut page) = open_docs(&staging, 1280).await else { return };
    authorize(&mut page, "a-token-to-patients-data").await;
    assert_eq!(page.evaluate(unlocked).await, true);
    let kept = page
        .evaluate("JSON.stringify(Object.entries(localStorage)) + JSON.stringify(Object.entries(sessionStorage))")
        .await;
    assert!(!kept.as_str().unwrap().contains("patients-data"), "{kept}");
    page.go(&format!("http://localhost:{}/docs/", staging.port)).await;
    page.wait_for("document.querySelectorAll('.opblock').length > 20").await;
    assert_eq!(page.evaluate(unlocked).await, false);
}
