//! Logging: one line per event, as JSON for machines or short for a terminal, without personal data. And traces, on their way to a
//! collector.

mod export;
mod losses;
mod panics;
mod redaction;
mod request_identity;
mod span_queue;

pub use export::SpanExport;
#[cfg(test)]
pub(crate) use panics::log_panic;
pub use panics::log_panics;
pub use redaction::redact;
pub(crate) use redaction::redacted_lines;
pub use request_identity::{ClientIp, RequestIdentity};

use crate::config::{LogFormat, Settings};
use redaction::RedactingWriter;
use std::io::{IsTerminal, Write};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Writes every later event of the process to `output`: a server logs to standard output, a command to standard error,
/// since its result goes to standard output. A second call does nothing.
///
/// Every line is redacted.
pub fn init<W: Write + IsTerminal + 'static>(settings: &Settings, output: fn() -> W) {
    let lines = match settings.log_format {
        LogFormat::Json => json_lines(output).boxed(),
        LogFormat::Pretty => {
            let lines = fmt::layer().with_writer(move || RedactingWriter(output()));
            lines.compact().with_target(false).without_time().with_ansi(output().is_terminal()).boxed()
        }
    };
    // The levels are a layer, not the filter of a layer: with a filter, sqlx's question before each statement whether its
    // line is enabled would also decide about the next line, which would be lost.
    let subscriber = tracing_subscriber::registry().with(lines).with(settings.log_level.clone());
    // Fails only if the process has a subscriber already, which then stays.
    let _ = subscriber.try_init();
}

/// JSON lines. The lines of a request have the request's id.
pub(crate) fn json_lines<S, W>(output: impl Fn() -> W + Send + Sync + 'static) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: Write + 'static,
{
    let lines = fmt::layer().with_writer(move || RedactingWriter(output()));
    lines.json().flatten_event(true).with_span_list(false)
}
