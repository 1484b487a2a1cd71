//! Tracing: one line per event, JSON for machines or short for a terminal.

use crate::config::{LogFormat, Settings};
use std::io::{IsTerminal, Write};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Sends every event of the process to `output` from here on: a server's standard output is its log, a command's is
/// what it was asked for. To be called once; a second call does nothing.
pub fn init<W: Write + IsTerminal + 'static>(settings: &Settings, output: fn() -> W) {
    let lines = fmt::layer().with_writer(output);
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Pretty => {
            lines.compact().with_target(false).without_time().with_ansi(output().is_terminal()).boxed()
        }
    };
    // Fails only where a subscriber stands already, which then stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(settings.log_level.clone())).try_init();
}
