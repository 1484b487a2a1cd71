//! A panic is a line of the log like any other.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

/// Logs every panic of the process from here on, wherever it happens, instead of printing it to standard error. For
/// servers; a command's panic is for the person at the terminal.
pub fn log_panics() {
    panic::set_hook(Box::new(log_panic));
}

/// One line for one panic.
pub(crate) fn log_panic(panic: &PanicHookInfo<'_>) {
    // Captured only where RUST_BACKTRACE asks for it.
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
