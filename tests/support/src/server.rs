//! The server as a process: started, asked, signalled, waited for.

use crate::{Database, SOON, eventually};
use reqwest::{Client, ClientBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use std::fs;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A running `bulkhead`, killed when this value goes; its database stays as long.
#[derive(Debug)]
pub struct Server<'d> {
    /// `http://127.0.0.1:PORT`, or with the address that HOST names.
    pub base: String,
    /// The port it listens on.
    pub port: u16,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// What collects them from its output and its errors; each ends with the process.
    readers: [JoinHandle<()>; 2],
    database: PhantomData<&'d Database>,
}

impl<'d> Server<'d> {
    /// The command with an environment of its own: nothing of the caller's settings leaks in.
    #[must_use]
    pub fn command(program: &Path, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(environment.iter().copied()).env("RUST_BACKTRACE", "1");
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it on a free port with `database`, and waits until it is ready.
    pub async fn ready(program: &Path, database: &'d Database, environment: &[(&str, &str)]) -> Self {
        let server = Self::listening(program, &[], database, environment).await;
        server.wait_until_ready().await;
        server
    }

    /// Starts it with `arguments` on a free port and waits until it listens; it may not be ready.
    ///
    /// # Panics
    /// When it ends before it listens.
    pub async fn listening(
        program: &Path,
        arguments: &[&str],
        database: &'d Database,
        environment: &[(&str, &str)],
    ) -> Self {
        // Tests ask in tight loops from one address: the rate limit is for those that ask for it.
        let mut all = vec![("PORT", "0"), ("LOG_FORMAT", "json"), ("RATE_LIMIT_PER_MINUTE", "0")];
        all.push(("DATABASE_URL", database.url.as_str()));
        all.extend_from_slice(environment);
        let mut command = Self::command(program, &all);
        let mut child = command.args(arguments).spawn().expect("bulkhead starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            collect(child.stdout.take().expect("its output"), &lines),
            collect(child.stderr.take().expect("its errors"), &lines),
        ];
        let mut server = Self { base: String::new(), port: 0, child, lines, readers, database: PhantomData };
        let address = server.find_address().await;
        server.port = address.port();
        // What it listens on is not always an address to ask.
        let host = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        server.base = format!("http://{}", SocketAddr::new(host, server.port));
        server
    }

    async fn find_address(&mut self) -> SocketAddr {
        let lines = Arc::clone(&self.lines);
        eventually("bulkhead says where it listens", async || {
            let ended = self.child.try_wait().expect("its state");
            let log = lines.lock().expect("the log");
            assert!(ended.is_none(), "bulkhead ended with {ended:?}: {log:#?}");
            log.iter().find_map(|line| {
                let event = serde_json::from_str::<Value>(line).ok();
                let json = event.as_ref().and_then(|event| event["address"].as_str());
                let pretty = || line.split_once("address=").and_then(|(_, rest)| rest.split(' ').next());
                json.or_else(pretty)?.parse().ok()
            })
        })
        .await
    }

    /// Waits until readiness answers 200.
    pub async fn wait_until_ready(&self) {
        eventually("readiness answers 200", async || {
            let (status, _) = self.get("/api/v1/health/ready").await?;
            (status == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// GETs a path: status and body; `None` when nothing answers.
    pub async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        get(&self.base, path).await
    }

    /// GETs a path: status and body as JSON.
    ///
    /// # Panics
    /// When nothing answers, or not in JSON.
    pub async fn get_json(&self, path: &str) -> (StatusCode, Value) {
        get_json(&self.base, path).await
    }

    /// Every line it has printed so far.
    ///
    /// # Panics
    /// When a reader of its output has panicked.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().expect("the log").clone()
    }

    /// What it has printed behind so many lines.
    ///
    /// # Panics
    /// When a reader of its output has panicked.
    #[must_use]
    pub fn log_after(&self, lines: usize) -> Vec<String> {
        self.lines.lock().expect("the log")[lines..].to_vec()
    }

    /// Waits for a line of its log that contains both texts.
    pub async fn log_line(&self, one: &str, other: &str) -> String {
        eventually(&format!("a line with {one} and {other} is logged"), async || {
            self.log().into_iter().find(|line| line.contains(one) && line.contains(other))
        })
        .await
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// The most memory that it has had, in bytes; `None` where the system does not say.
    ///
    /// # Panics
    /// When it has ended already.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", id(&self.child).as_raw_nonzero())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    }

    /// Lets it write no file beyond this many bytes, until it is told otherwise; `None` is no limit. A write beyond it
    /// fails where the process was started with SIGXFSZ ignored, and ends it elsewhere (setrlimit(2)).
    ///
    /// # Panics
    /// When it has ended already.
    #[cfg(target_os = "linux")]
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        // The process has the hard limit from this one, and may not raise it.
        let limit = Rlimit { current: bytes, maximum: getrlimit(Resource::Fsize).maximum };
        prlimit(Some(id(&self.child)), Resource::Fsize, limit).expect("the limit is set");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended in time.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(SOON).await
    }

    /// Waits for its end, `limit` at most, and for its last lines: [`Server::log`] has all of them then.
    ///
    /// # Panics
    /// When it has not ended by then.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("bulkhead has not ended within {limit:?}")).expect("its status");
        for reader in &mut self.readers {
            // A second time there is nothing more to wait for.
            if !reader.is_finished() {
                tokio::time::timeout(SOON, reader).await.expect("its output ends with it").expect("a reader");
            }
        }
        status
    }
}

async fn get(base: &str, path: &str) -> Option<(StatusCode, String)> {
    let response = shared_client().get(format!("{base}{path}")).send().await.ok()?;
    Some((response.status(), response.text().await.ok()?))
}

/// GETs a path of a server at `base`: status and body as JSON.
///
/// # Panics
/// When nothing answers, or not in JSON.
pub async fn get_json(base: &str, path: &str) -> (StatusCode, Value) {
    let (status, body) = get(base, path).await.expect("an answer");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path} is not JSON ({error}): {body}")))
}

/// What to build a client with that speaks plain HTTP to servers of this machine: reading the system's certificates takes
/// longer than most requests here.
pub fn http_client() -> ClientBuilder {
    Client::builder().tls_certs_only([])
}

/// One client for all: it keeps no connection, which would end with the runtime of the test that opened it.
fn shared_client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| http_client().pool_max_idle_per_host(0).build().expect("a client"))
}

/// Sends a signal to a process that has not been waited for.
///
/// # Panics
/// When it has ended already.
pub fn send(child: &Child, signal: Signal) {
    kill_process(id(child), signal).expect("the signal is delivered");
}

fn id(child: &Child) -> Pid {
    child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("it runs")
}

fn collect(stream: impl AsyncRead + Send + Unpin + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.lock().expect("the log").push(line);
        }
    })
}
