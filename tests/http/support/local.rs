//! The API in the test's own process: the router that the program serves, on the test's runtime.

use axum::Router;
use bulkhead::app::AppState;
use bulkhead::auth::Auth;
use bulkhead::config::Settings;
use bulkhead::database;
use bulkhead::lifecycle::{Lifecycle, Phase};
use bulkhead::server::router;
use bulkhead_migrator::{Options, Runner};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use test_support::Database;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A router on a port of 127.0.0.1, gone with this value. It writes no log, and hyper's own answers to what is no request
/// are not the program's.
#[derive(Debug)]
pub(crate) struct LocalServer {
    /// `http://127.0.0.1:PORT`.
    pub(crate) base: String,
    tasks: Vec<JoinHandle<()>>,
}

impl LocalServer {
    /// Serves the API on a SQLite database without identity provider, with these settings.
    pub(crate) async fn without_provider(database: &Database, settings: &[(&str, &str)]) -> Self {
        let all = [&[("DATABASE_URL", database.url.as_str()), ("RATE_LIMIT_PER_MINUTE", "0")], settings].concat();
        Self::with_routes(&all, router).await
    }

    /// Serves these routes over a database that is migrated.
    pub(crate) async fn with_routes(environment: &[(&str, &str)], routes: impl FnOnce(AppState) -> Router) -> Self {
        let (state, keys) = state(environment);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // The peer's address is what the program's own listener passes on, too.
        let service = routes(state).into_make_service_with_connect_info::<SocketAddr>();
        let serving = tokio::spawn(async { axum::serve(listener, service).await.unwrap() });
        Self { base, tasks: vec![keys, serving] }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The state of a server that is ready, as `bulkhead::server::run` makes it; and the task that fetches the provider's keys.
fn state(environment: &[(&str, &str)]) -> (AppState, JoinHandle<()>) {
    let variables: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let settings = Arc::new(Settings::read(&|name| variables.get(name).map(OsString::from)).0.unwrap());
    let auth = Auth::new(&settings.auth);
    let fetching = Arc::clone(&auth);
    let keys = tokio::spawn(async move { fetching.run().await });
    let runner = Arc::new(Runner::new(bulkhead_migration::migrations(), Options::default()));
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Serving);
    let pool = database::pool(&settings);
    (AppState::new(settings, pool, auth, lifecycle, runner), keys)
}
