//! The container engine's command line, docker's and podman's alike.

use serde_json::Value;
use std::process::{Command, Output};

/// The image under test.
pub(crate) fn image() -> String {
    std::env::var("IMAGE").expect("IMAGE names the image to test; scripts/test builds one and sets it")
}

/// A command of the engine to test with.
pub(crate) fn engine(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("ENGINE").unwrap_or_else(|_| "docker".to_owned()));
    command.args(arguments);
    command
}

/// Whether the engine is podman, by whatever name it is called.
pub(crate) fn is_podman() -> bool {
    succeed(&mut engine(&["--version"])).to_lowercase().contains("podman")
}

/// Runs a command to its end, however it ends.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the engine says of the image.
pub(crate) fn inspect_image() -> Value {
    let inspected: Value = serde_json::from_str(&succeed(&mut engine(&["image", "inspect", &image()]))).unwrap();
    inspected[0].clone()
}
