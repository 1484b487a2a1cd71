//! A real browser without a window: what a page has become once its scripts have run.

use std::process::Stdio;
use std::time::Duration;
use test_support::skip;
use tokio::process::Command;

/// Names of a Chromium on PATH, Debian's first.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Opens a page of this machine, follows where it leads, and gives the document it ends with; `None`, with a loud
/// skip, where there is no browser.
pub(crate) async fn final_document(url: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let Some(browser) = BROWSERS.into_iter().find(installed) else {
        skip("no browser: install chromium");
        return None;
    };
    let profile = tempfile::tempdir().unwrap();
    let page = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-quic"])
        // Whatever is not this machine does not resolve: pages must do without.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(url)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let page = tokio::time::timeout(Duration::from_mins(2), page).await.expect("the browser ends").unwrap();
    Some(String::from_utf8_lossy(&page.stdout).into_owned())
}
