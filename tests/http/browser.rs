//! A real browser without a window: what a page has become once its scripts have run, and what it does when it is used.

use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use test_support::{SOON, eventually, skip};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Names of a Chromium on PATH, Debian's first.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The browser's name; `None`, with a loud skip, where there is none.
fn program() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let browser = BROWSERS.into_iter().find(installed);
    if browser.is_none() {
        skip("no browser: install chromium");
    }
    browser
}

/// What every browser here is started with. Whatever is not this machine does not resolve: pages must do without.
fn arguments(profile: &TempDir) -> Vec<String> {
    let mut arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--user-data-dir={}", profile.path().display()));
    arguments
}

/// Opens a page of this machine, follows where it leads, and gives the document it ends with; `None`, with a loud
/// skip, where there is no browser.
pub(crate) async fn final_document(url: &str) -> Option<String> {
    let browser = program()?;
    let profile = tempfile::tempdir().unwrap();
    let page = Command::new(browser)
        .args(arguments(&profile))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(url)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let page = tokio::time::timeout(Duration::from_mins(2), page).await.expect("the browser ends").unwrap();
    Some(String::from_utf8_lossy(&page.stdout).into_owned())
}

/// A browser with one page, driven by the Chrome DevTools Protocol (chromedevtools.github.io/devtools-protocol); ends with
/// this value.
pub(crate) struct Browser {
    _process: Child,
    _profile: TempDir,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
}

impl Browser {
    /// Starts it with a window of this width; `None`, with a loud skip, where there is none.
    pub(crate) async fn open(url: &str, width: u32) -> Option<Self> {
        let browser = program()?;
        let profile = tempfile::tempdir().unwrap();
        // The browser takes commands from file 3 and answers to file 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", browser])
            .args(arguments(&profile))
            .arg("--remote-debugging-pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (commands, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let answers = BufReader::new(answers);
        let mut browser = Self { _process: process, _profile: profile, commands, answers, session: None, sent: 0 };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        let window = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.ask("Emulation.setDeviceMetricsOverride", window).await;
        browser.go(url).await;
        Some(browser)
    }

    /// Goes to a page.
    pub(crate) async fn go(&mut self, url: &str) {
        self.ask("Page.navigate", json!({"url": url})).await;
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let answer = async {
            self.commands.write_all(&[command.to_string().as_bytes(), b"\0"].concat()).await.unwrap();
            loop {
                let mut message = Vec::new();
                self.answers.read_until(0, &mut message).await.unwrap();
                assert_eq!(message.pop(), Some(0), "the browser has ended");
                let message: Value = serde_json::from_slice(&message).unwrap();
                // Between answers there are events, which nobody asked for.
                if message["id"] == json!(self.sent) {
                    return message;
                }
            }
        };
        let answer = tokio::time::timeout(SOON, answer).await.unwrap_or_else(|_| panic!("no answer to {command}"));
        assert!(answer["error"].is_null(), "{command}: {answer}");
        answer["result"].clone()
    }

    /// What a JavaScript expression comes to on the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let outcome = self.ask("Runtime.evaluate", parameters).await;
        assert!(outcome["exceptionDetails"].is_null(), "{expression}: {}", outcome["exceptionDetails"]);
        outcome["result"]["value"].clone()
    }

    /// Waits until a JavaScript expression is neither null nor false; returns what it is.
    pub(crate) async fn wait_for(&mut self, expression: &str) -> Value {
        eventually(expression, async || {
            let value = self.evaluate(expression).await;
            (!value.is_null() && value != json!(false)).then_some(value)
        })
        .await
    }
}
