//! The login as people do it: a real browser between a front end, the API and the provider, with its own redirects,
//! its own cookies, and its own opinion on calls across origins.

use crate::browser::final_document;
use crate::support::{TestApp, assert_log_without};
use axum::Router;
use axum::response::Html;
use axum::routing::get;
use test_support::Server;
use test_support::provider::{Endpoint, Shape};

/// The front end's first page: keeps where the API is, and goes to log in.
const START: &str = r"<!doctype html><title>Front end</title><script>
const api = new URLSearchParams(location.search).get('api');
sessionStorage.setItem('api', api);
location = api + '/api/v1/auth/login';
</script>";

/// The page that the provider leads back to, as docs/auth.md has it, and what comes of it in its document.
const CALLBACK: &str = r"<!doctype html><title>Welcome</title><pre id=result>waiting</pre><script>
(async () => {
  const api = sessionStorage.getItem('api');
  const { code, state } = Object.fromEntries(new URLSearchParams(location.search));
  const answer = await fetch(api + '/api/v1/auth/callback', {
    method: 'POST', credentials: 'include',
    headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ code, state }),
  });
  const login = await answer.json();
  const valid = await fetch(api + '/api/v1/auth/validate', {
    headers: { Authorization: 'Bearer ' + login.access_token },
  });
  const id = answer.headers.get('x-request-id') ? 'request-id-readable' : 'request-id-hidden';
  const cookie = document.cookie === '' ? 'cookie-hidden' : 'cookie-readable';
  return [answer.status, login.token_type, valid.status, (await valid.json()).tenant_id, id, cookie].join(' ');
})().catch(error => 'failed: ' + error).then(text => { document.querySelector('#result').textContent = text; });
</script>";

/// A front end of the test's own on a port of its own: another origin than the API's, but the same site.
async fn front_end() -> String {
    let router = Router::new().route("/", get(async || Html(START))).route("/callback", get(async || Html(CALLBACK)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async { axum::serve(listener, router).await });
    origin
}

/// What the front end's last page says, after a login in a browser.
async fn result_of_login(front_end: &str, server: &Server<'_>) -> Option<String> {
    let page = final_document(&format!("{front_end}/?api=http://localhost:{}", server.port)).await?;
    let result = page.split_once("<pre id=\"result\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    Some(result.unwrap_or_else(|| panic!("the browser ends elsewhere:\n{page}\n{:#?}", server.log())).0.to_owned())
}

#[tokio::test]
async fn a_browser_logs_in_and_calls_the_api() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let origin = front_end().await;
    app.provider.register(format!("{origin}/callback"));
    app.provider.press_by_itself();
    let server = app.server(&[("ALLOWED_ORIGINS", &origin)]).await;
    let Some(result) = result_of_login(&origin, &server).await else { return };
    let expected = format!("200 Bearer 200 {} request-id-readable cookie-hidden", app.tenant);
    assert_eq!(result, expected, "{:#?}", server.log());
    assert_eq!(app.provider.seen(Endpoint::Token), 1);
    assert_log_without(&server, []);
}

#[tokio::test]
async fn a_browser_lets_no_other_front_end_finish_a_login() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let origin = front_end().await;
    app.provider.register(format!("{origin}/callback"));
    app.provider.press_by_itself();
    let server = app.server(&[("ALLOWED_ORIGINS", "http://localhost:3000")]).await;
    let Some(result) = result_of_login(&origin, &server).await else { return };
    assert_eq!(result, "failed: TypeError: Failed to fetch");
    // The browser asks first, and is told no: nothing has been sent.
    assert_eq!(app.provider.seen(Endpoint::Token), 0);
}
