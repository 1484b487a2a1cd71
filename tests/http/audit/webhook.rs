//! Checkpoints are posted to whoever keeps them outside: what a receiver gets, and what one that takes nothing costs.

use crate::metrics::free_port;
use crate::support::{AuditedTenant, SIGNING};
use crate::{run, stderr, stdout};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::{Database, eventually, on_migrated_databases};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

on_migrated_databases!(a_server_posts_what_it_makes_until_it_is_taken, the_command_posts_what_it_prints);

/// A user with a password, and a query, none of which anybody is shown.
const CREDENTIALS: &str = "me:hunter2";
const PATH: &str = "/keep?token=hunter3";

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Take,
    Fail,
    Redirect,
    /// Never.
    Hang,
}

/// What has come to a receiver: the path, the headers, the body.
type Post = (Uri, HeaderMap, String);

#[derive(Debug)]
struct Receiver {
    url: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    answer: Mutex<Answer>,
    posts: Mutex<Vec<(Answer, Post)>>,
    hanging: AtomicUsize,
}

/// A request that gets no answer, until its connection ends.
struct Hanging<'i>(&'i AtomicUsize);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn receive(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(method, Method::POST);
    let answer = *inner.answer.lock().unwrap();
    inner.posts.lock().unwrap().push((answer, (uri, headers, String::from_utf8(body.into()).unwrap())));
    match answer {
        Answer::Take => StatusCode::NO_CONTENT.into_response(),
        Answer::Fail => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        Answer::Hang => {
            inner.hanging.fetch_add(1, Ordering::SeqCst);
            let _hanging = Hanging(&inner.hanging);
            std::future::pending().await
        }
    }
}

impl Receiver {
    async fn start(answer: Answer) -> Self {
        let inner = Inner { answer: Mutex::new(answer), posts: Mutex::default(), hanging: AtomicUsize::new(0) };
        let inner = Arc::new(inner);
        let router = Router::new().fallback(receive).with_state(Arc::clone(&inner));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{CREDENTIALS}@{}{PATH}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, inner }
    }

    fn answer(&self, answer: Answer) {
        *self.inner.answer.lock().unwrap() = answer;
    }

    fn hangs(&self) -> bool {
        self.inner.hanging.load(Ordering::SeqCst) > 0
    }

    /// The posts that were answered so.
    fn posts(&self, answer: Answer) -> Vec<Post> {
        let posts = self.inner.posts.lock().unwrap();
        posts.iter().filter(|(given, _)| *given == answer).map(|(_, post)| post.clone()).collect()
    }

    fn bodies(&self, answer: Answer) -> Vec<String> {
        self.posts(answer).into_iter().map(|(_, _, body)| body).collect()
    }

    /// The first post that is answered so.
    async fn post(&self, answer: Answer) -> Post {
        eventually(&format!("a post is answered: {answer:?}"), async || self.posts(answer).into_iter().next()).await
    }
}

/// Answers once with this, and then with more and more, until the other side has enough: its URL, and how many bytes it took.
async fn endless(head: &'static str, more: &'static str) -> (String, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let sent = tokio::spawn(async move {
        let mut total = 0;
        let (mut connection, _) = listener.accept().await.unwrap();
        // The whole request is in the first segment of a connection within the machine, or in the next.
        let _ = connection.read(&mut [0; 8 * 1024]).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let chunk = more.repeat(1024);
        while connection.write_all(chunk.as_bytes()).await.is_ok() {
            total += chunk.len();
        }
        total
    });
    (url, sent)
}

/// Runs `audit checkpoint` with this webhook.
async fn checkpoint(clinic: &AuditedTenant, url: &str) -> Output {
    let webhook = [("DATABASE_URL", clinic.database.url.as_str()), ("AUDIT_CHECKPOINT_WEBHOOK", url)];
    run(&["audit", "checkpoint"], &[&webhook[..], &SIGNING].concat()).await
}

/// `audit verify --since` takes these notes.
async fn must_fit(clinic: &AuditedTenant, notes: &[String]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), notes.concat()).unwrap();
    let said = clinic.signed(&["audit", "verify", "--since", file.path().to_str().unwrap()]).await;
    assert_eq!(said.lines().filter(|line| line.starts_with("fits ")).count(), notes.len(), "{said}");
}

fn must_be_a_checkpoint((uri, headers, body): &Post, of: &str) {
    assert_eq!(uri.to_string(), PATH);
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    // `me:hunter2` in base64.
    assert_eq!(headers["authorization"], "Basic bWU6aHVudGVyMg==");
    assert!(body.starts_with(&format!("api.example.org/{of}\n")), "{body}");
}

/// The gauge of what waits, at this port.
async fn waiting(port: u16) -> Option<String> {
    let text = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.ok()?.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix("bulkhead_audit_checkpoints_waiting ")).map(str::to_owned)
}

async fn a_server_posts_what_it_makes_until_it_is_taken(database: Database) {
    let (clinic, receiver) = (AuditedTenant::new(database).await, Receiver::start(Answer::Fail).await);
    let port = free_port();
    let webhook = [("AUDIT_CHECKPOINT_WEBHOOK", receiver.url.as_str()), ("METRICS_PORT", &*port.to_string())];
    let server = clinic.server(&[&SIGNING[..], &webhook].concat()).await;
    let admin = clinic.caller(&server, "ada", "admin");
    admin.get("tenant").await.assert_status(200);

    receiver.post(Answer::Fail).await;
    receiver.answer(Answer::Redirect);
    receiver.post(Answer::Redirect).await;
    receiver.answer(Answer::Hang);
    receiver.post(Answer::Hang).await;
    // Requests go on, while it hangs.
    for _ in 0..10 {
        admin.get("tenant").await.assert_status(200);
    }
    assert!(receiver.hangs());
    assert_eq!(waiting(port).await.as_deref(), Some("1"));
    receiver.answer(Answer::Take);
    let taken = receiver.post(Answer::Take).await;
    must_be_a_checkpoint(&taken, &clinic.tenant.to_string());
    assert!(!receiver.hangs(), "it was not left to hang");
    eventually("nothing waits", async || (waiting(port).await? == "0").then_some(())).await;

    // It is the newest one, as it is stored.
    let stored = admin.request("GET", "audit-logs/checkpoint").send().await.unwrap().text().await.unwrap();
    assert_eq!(receiver.bodies(Answer::Take), [stored.as_str()]);
    must_fit(&clinic, &[stored]).await;

    for reason in
        ["the answer is 500 Internal Server Error", "the answer is 307 Temporary Redirect", "operation timed out"]
    {
        server.log_line("the webhook did not take checkpoints of audit logs: they are sent again", reason).await;
    }
    let log = server.log().join("\n");
    assert!(!log.contains("hunter") && !log.contains("keep?") && !log.contains("bWU6"), "{log}");
}

async fn the_command_posts_what_it_prints(database: Database) {
    let (clinic, receiver) = (AuditedTenant::new(database).await, Receiver::start(Answer::Take).await);
    let other = clinic.make_tenant("other").await;
    let output = checkpoint(&clinic, &receiver.url).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let posts = receiver.posts(Answer::Take);
    assert_eq!(posts.len(), 2, "one for each log with entries");
    must_be_a_checkpoint(&posts[0], &clinic.tenant.to_string());
    must_be_a_checkpoint(&posts[1], &other.to_string());
    let bodies = receiver.bodies(Answer::Take);
    assert_eq!(stdout(&output), bodies.concat());
    must_fit(&clinic, &bodies).await;

    for (answer, reason) in [(Answer::Fail, "500 Internal Server Error"), (Answer::Redirect, "307 Temporary Redirect")]
    {
        receiver.answer(answer);
        let output = checkpoint(&clinic, &receiver.url).await;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), bodies.concat(), "they are printed all the same");
        let line = |name: &str, id| {
            format!("AUDIT_CHECKPOINT_WEBHOOK: the checkpoint of {name} ({id}) was not taken: the answer is {reason}\n")
        };
        assert_eq!(stderr(&output), line("clinic", clinic.tenant) + &line("other", other));
        assert_eq!(receiver.bodies(answer), [&bodies[..], &bodies].concat(), "each is tried twice");
    }
    // Nobody listens at port 1.
    let output = checkpoint(&clinic, "http://me:hunter2@127.0.0.1:1/keep?token=hunter3").await;
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
    assert!(said.to_lowercase().contains("connection refused") && !said.contains("hunter"), "{said}");
}

#[tokio::test]
async fn a_receiver_that_never_ends_has_bounds() {
    const BYTES_MAX: usize = 32 * 1024 * 1024;
    let clinic = AuditedTenant::new(Database::migrated_sqlite().await).await;
    // What follows the status says nothing.
    let (url, sent) = endless("HTTP/1.1 200 OK\r\n\r\n", "more and more ").await;
    let output = checkpoint(&clinic, &url).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(sent.await.unwrap() < BYTES_MAX);
    let (url, sent) = endless("HTTP/1.1 200 OK\r\n", "more: and more\r\n").await;
    let output = checkpoint(&clinic, &url).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(sent.await.unwrap() < BYTES_MAX);

    // With two logs, nobody waits for each.
    clinic.make_tenant("other").await;
    let (receiver, began) = (Receiver::start(Answer::Hang).await, Instant::now());
    let output = checkpoint(&clinic, &receiver.url).await;
    let (took, said) = (began.elapsed(), stderr(&output));
    assert_eq!((output.status.code(), receiver.posts(Answer::Hang).len()), (Some(1), 2), "{said}");
    assert!(said.contains("clinic") && said.contains("other") && said.contains("operation timed out"), "{said}");
    // Ten seconds, one, and ten.
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(40), "{took:?}");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_is_refused_by_its_variable() {
    let url = "AUDIT_CHECKPOINT_WEBHOOK: must be a URL such as https://checkpoints.example.org/bulkhead\n";
    let https = "AUDIT_CHECKPOINT_WEBHOOK: must be https outside development, unless the host is localhost\n";
    for (environment, webhook, said) in [
        ("development", "ftp://me:hunter2@example.org/keep", url),
        ("development", "/keep?token=hunter2", url),
        ("staging", "http://me:hunter2@example.org/keep", https),
        ("production", "http://example.org/keep?token=hunter2", https),
    ] {
        let settings =
            [("ENVIRONMENT", environment), ("DATABASE_URL", "sqlite://x.db"), ("AUDIT_CHECKPOINT_WEBHOOK", webhook)];
        let settings = [&settings[..], &SIGNING].concat();
        let output = run(&["config", "check"], &settings).await;
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(2), said), "{webhook}");
        let shown = stdout(&run(&["config", "show"], &settings).await);
        assert!(shown.contains("AUDIT_CHECKPOINT_WEBHOOK") && !shown.contains("hunter2"), "{shown}");
    }
    let webhook = ("AUDIT_CHECKPOINT_WEBHOOK", "https://me:hunter2@example.org/keep?token=hunter3");
    let shown = stdout(&run(&["config", "show"], &[&[webhook][..], &SIGNING].concat()).await);
    let line = shown.lines().find(|line| line.starts_with(webhook.0)).unwrap();
    assert!(
        line.contains("***  (environment)") && !shown.contains("hunter") && !shown.contains("example.org/"),
        "{line}"
    );
}
