//! Tracing: one line per event, JSON for machines or short for a terminal.

use crate::config::{LogFormat, Settings};
use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Sends every event of the process to standard output from here on. To be called once; a second call does nothing.
pub fn init(settings: &Settings) {
    let lines = match settings.log_format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Pretty => {
            fmt::layer().compact().with_target(false).without_time().with_ansi(std::io::stdout().is_terminal()).boxed()
        }
    };
    // Fails only where a subscriber stands already, which then stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(settings.log_level.clone())).try_init();
}
