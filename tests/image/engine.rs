//! The container engine's command line, docker's and podman's alike.

use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::{Database, eventually};

/// The image under test.
pub(crate) fn image() -> String {
    std::env::var("IMAGE").expect("IMAGE names the image to test; scripts/test builds one and sets it")
}

/// The engine to test with.
pub(crate) fn engine() -> String {
    std::env::var("ENGINE").unwrap_or_else(|_| "docker".to_owned())
}

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The image's configuration and its health check, which the engines keep in different places.
pub(crate) fn config() -> (Value, Value) {
    let text = succeed(Command::new(engine()).args(["image", "inspect", &image()]));
    let inspected: Value = serde_json::from_str(&text).unwrap();
    let image = &inspected[0];
    let healthcheck = [&image["Config"]["Healthcheck"], &image["Healthcheck"], &image["HealthCheck"]];
    let healthcheck = healthcheck.into_iter().find(|value| !value.is_null()).cloned();
    (image["Config"].clone(), healthcheck.expect("a health check"))
}

/// One file of the image, as `tar` lists it.
pub(crate) struct File {
    pub(crate) mode: String,
    pub(crate) owner: String,
    pub(crate) name: String,
}

/// Every file of every layer, folders left out, sorted by name.
pub(crate) fn files() -> Vec<File> {
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<File> = layers(folder.path())
        .iter()
        .flat_map(|layer| {
            let listing = succeed(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(layer));
            let lines: Vec<String> = listing.lines().map(str::to_owned).collect();
            lines
        })
        .filter(|line| !line.starts_with('d'))
        .map(|line| {
            // -r-xr-xr-x 0/0 12345 1970-01-01 00:00 ./bin/bulkhead
            let mut fields = line.split_whitespace().map(str::to_owned);
            let (mode, owner) = (fields.next().unwrap(), fields.next().unwrap());
            let name = fields.skip(3).collect::<Vec<_>>().join(" ");
            File { mode, owner, name: name.trim_start_matches("./").to_owned() }
        })
        .collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files
}

/// Takes one file out of the image.
pub(crate) fn extract(name: &str, folder: &Path) -> PathBuf {
    for layer in layers(folder) {
        for spelled in [name.to_owned(), format!("./{name}")] {
            let done = Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(folder).arg(&spelled).output().unwrap();
            if done.status.success() {
                return folder.join(name);
            }
        }
    }
    panic!("{name} is in no layer");
}

/// Saves the image into `folder`; returns its layers' archives.
fn layers(folder: &Path) -> Vec<PathBuf> {
    let archive = folder.join("image.tar");
    succeed(Command::new(engine()).args(["save", "--output"]).arg(&archive).arg(image()));
    succeed(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder));
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    layers.iter().map(|layer| folder.join(layer.as_str().unwrap())).collect()
}

/// A running container, removed with this value.
pub(crate) struct Container {
    pub(crate) id: String,
    port: u16,
}

impl Container {
    /// Starts the image as confined as it promises to run.
    pub(crate) fn start(database: &Database) -> Self {
        // The database listens on this machine's loopback, hence the host's network and a port of one's own.
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(engine());
        command.args(["run", "--detach", "--network", "host", "--read-only", "--cap-drop", "all"]);
        command.args(["--security-opt", "no-new-privileges", "--env", &format!("PORT={port}")]);
        command.args(["--env", &format!("DATABASE_URL={}", database.url), &image()]);
        Self { id: succeed(&mut command).trim().to_owned(), port }
    }

    /// Waits until readiness answers 200.
    pub(crate) async fn ready(&self) {
        let url = format!("http://127.0.0.1:{}/api/v1/health/ready", self.port);
        eventually("the container is ready", async || {
            let running = succeed(Command::new(engine()).args(["inspect", "--format", "{{.State.Running}}", &self.id]));
            assert_eq!(running.trim(), "true", "{}", self.log());
            (reqwest::get(&url).await.ok()?.status() == 200).then_some(())
        })
        .await;
    }

    /// The user and group the server runs as, seen from inside its user namespace.
    pub(crate) fn user_and_group(&self) -> (u32, u32) {
        let id = succeed(Command::new(engine()).args(["inspect", "--format", "{{.State.Pid}}", &self.id]));
        let process = PathBuf::from("/proc").join(id.trim());
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let seen = |field: &str, map: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            let outside: u32 = line.split_whitespace().next().unwrap().parse().unwrap();
            // Lines of: first id inside, first id outside, how many.
            let map = std::fs::read_to_string(process.join(map)).unwrap();
            let inside = map.lines().find_map(|line| {
                let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().unwrap());
                let (first, start, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
                let offset = outside.checked_sub(start).filter(|offset| *offset < count)?;
                Some(first + offset)
            });
            inside.unwrap()
        };
        (seen("Uid:", "uid_map"), seen("Gid:", "gid_map"))
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        let output = Command::new(engine()).args(["logs", &self.id]).output().unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Killed first: removing by force would give it ten seconds to stop.
        let _ = Command::new(engine()).args(["kill", &self.id]).output();
        let _ = Command::new(engine()).args(["rm", "--force", &self.id]).output();
    }
}
