//! Tracing: one line per event, JSON for machines or short for a terminal, and nothing in it that names a patient.

mod caller;
mod panics;
mod redaction;

pub use caller::{Caller, CallerIds, ClientIp};
#[cfg(test)]
pub(crate) use panics::log_panic;
pub use panics::log_panics;
pub use redaction::redact;

use crate::config::{LogFormat, Settings};
use redaction::Redacting;
use std::io::{IsTerminal, Write};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Sends every event of the process to `output` from here on: a server's standard output is its log, a command's is
/// what it was asked for. To be called once; a second call does nothing.
///
/// Every line passes the redaction, whoever wrote it.
pub fn init<W: Write + IsTerminal + 'static>(settings: &Settings, output: fn() -> W) {
    let lines = match settings.log_format {
        LogFormat::Json => json_lines(output).boxed(),
        LogFormat::Pretty => {
            let lines = fmt::layer().with_writer(move || Redacting(output()));
            lines.compact().with_target(false).without_time().with_ansi(output().is_terminal()).boxed()
        }
    };
    // As a layer of its own, not as the filter of one: that would take the answer to whether something is to be logged,
    // which sqlx asks of every statement, for the next line's, and lose it.
    let subscriber = tracing_subscriber::registry().with(lines).with(settings.log_level.clone());
    // Fails only where a subscriber stands already, which then stays.
    let _ = subscriber.try_init();
}

/// JSON lines; each within a request carries the request's id.
pub(crate) fn json_lines<S, W>(output: impl Fn() -> W + Send + Sync + 'static) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: Write + 'static,
{
    let lines = fmt::layer().with_writer(move || Redacting(output()));
    lines.json().flatten_event(true).with_span_list(false)
}
