//! How the program was started, as far as its texts for people depend on it.

use std::env;

/// Whether cargo runs the program: cargo sets these variables for what `cargo run` starts, too
/// (doc.rust-lang.org/cargo/reference/environment-variables.html, "Environment variables Cargo sets for crates").
pub(crate) fn by_cargo() -> bool {
    env::var_os("CARGO_PKG_NAME").is_some_and(|package| package == env!("CARGO_PKG_NAME"))
}

/// What people type to run the program again, without a subcommand.
pub(crate) fn command() -> &'static str {
    if by_cargo() { "cargo run --" } else { "bulkhead" }
}
