//! Containers of the image under test: started as confined as it promises to run, asked, told to stop, removed.

use crate::engine::{engine, image, run, succeed};
use reqwest::StatusCode;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use test_support::{Database, eventually};

/// What a container with nothing to finish may take to answer or to stop; an engine kills after ten seconds.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

/// How to start a container.
#[derive(Clone)]
pub(crate) struct Run {
    options: Vec<String>,
    port: u16,
}

impl Run {
    /// With a read-only root, without capabilities and without a way to new privileges.
    pub(crate) fn confined() -> Self {
        let run = Self { options: Vec::new(), port: 8000 };
        run.option("--read-only", "").option("--cap-drop", "all").option("--security-opt", "no-new-privileges")
    }

    /// On this machine's own network and a free port: what listens on the loopback, a test's database for one, is
    /// within its reach.
    pub(crate) fn on_this_machine() -> Self {
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        Self { port, ..Self::confined() }.option("--network", "host").set("PORT", port.to_string())
    }

    /// As [`Run::on_this_machine`], with this database.
    pub(crate) fn with(database: &Database) -> Self {
        Self::on_this_machine().set("DATABASE_URL", &database.url)
    }

    /// With a SQLite database in memory, for what needs nothing beyond the container.
    pub(crate) fn by_itself() -> Self {
        Self::confined().option("--tmpfs", "/data:mode=1777").set("DATABASE_URL", "sqlite:///data/bulkhead.db?mode=rwc")
    }

    /// Sets an option of the engine's `run`; one without a value takes none.
    pub(crate) fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.options.push(if value.is_empty() { name.to_owned() } else { format!("{name}={value}") });
        self
    }

    /// Sets an environment variable.
    pub(crate) fn set(self, name: &str, value: impl AsRef<str>) -> Self {
        self.option("--env", format!("{name}={}", value.as_ref()))
    }

    /// Mounts a file of this machine, read-only.
    pub(crate) fn mount(self, file: &Path, target: &str) -> Self {
        // `z` is for machines with SELinux; the others know nothing of it.
        self.option("--volume", format!("{}:{target}:ro,z", file.display()))
    }

    pub(crate) fn start(&self) -> Container {
        let mut command = engine(&["run", "--detach"]);
        let id = succeed(command.args(&self.options).arg(image())).trim().to_owned();
        Container { id, address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)) }
    }
}

/// A container, removed with this value.
pub(crate) struct Container {
    pub(crate) id: String,
    /// Where it is asked from this machine.
    pub(crate) address: SocketAddr,
}

impl Container {
    /// Waits until readiness answers 200.
    pub(crate) async fn ready(&self) {
        eventually("the container is ready", async || {
            assert_eq!(self.inspect()["State"]["Running"], true, "{}", self.log());
            (self.get("/api/v1/health/ready").await?.0 == 200).then_some(())
        })
        .await;
    }

    /// GETs a path: status and body; `None` when nothing answers, or not soon.
    pub(crate) async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let response = reqwest::Client::new().get(self.url(path)).timeout(PROMPT).send().await.ok()?;
        Some((response.status(), response.text().await.ok()?))
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What the engine says of it.
    pub(crate) fn inspect(&self) -> Value {
        let inspected: Value = serde_json::from_str(&succeed(&mut engine(&["inspect", &self.id]))).unwrap();
        inspected[0].clone()
    }

    /// Where this machine's kernel keeps what it knows of the process.
    pub(crate) fn process(&self) -> PathBuf {
        PathBuf::from("/proc").join(self.inspect()["State"]["Pid"].to_string())
    }

    /// Runs `bulkhead` in it with these variables besides its own.
    pub(crate) fn exec(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = engine(&["exec"]);
        for (name, value) in environment {
            command.arg(format!("--env={name}={value}"));
        }
        run(command.args([&self.id, "/bin/bulkhead"]).args(arguments))
    }

    pub(crate) fn signal(&self, name: &str) {
        succeed(&mut engine(&["kill", "--signal", name, &self.id]));
    }

    /// Waits for its end; returns its exit code.
    pub(crate) async fn ended(&self) -> i64 {
        let state = eventually("the container ends", async || {
            let state = self.inspect()["State"].clone();
            (state["Status"] == "exited").then_some(state)
        });
        state.await["ExitCode"].as_i64().unwrap()
    }

    /// What it has printed: its log, and why it failed.
    pub(crate) fn log(&self) -> String {
        let output = run(&mut engine(&["logs", &self.id]));
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// The lines of its standard error.
    pub(crate) fn errors(&self) -> Vec<String> {
        let output = run(&mut engine(&["logs", &self.id]));
        String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits for a line of its log that contains both texts.
    pub(crate) async fn log_line(&self, one: &str, other: &str) -> String {
        eventually(&format!("a line with {one} and {other} is logged"), async || {
            self.log().lines().find(|line| line.contains(one) && line.contains(other)).map(str::to_owned)
        })
        .await
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Killed first: removing by force would give it ten seconds to stop.
        let _ = engine(&["kill", &self.id]).output();
        let _ = engine(&["rm", "--force", &self.id]).output();
    }
}
