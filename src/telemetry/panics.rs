//! Logs panics.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

/// Logs every later panic of the process instead of printing it to standard error. For servers: a command prints its
/// panics for the person at the terminal.
pub fn log_panics() {
    panic::set_hook(Box::new(log_panic));
}

/// Logs one panic in one line.
pub(crate) fn log_panic(panic: &PanicHookInfo<'_>) {
    // Captured only if RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = panic.payload_as_str().unwrap_or("of another type"),
        location = panic.location().map(tracing::field::display),
        thread = std::thread::current().name(),
        backtrace,
        "panicked"
    );
}
