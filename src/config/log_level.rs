//! LOG_LEVEL: a level, or a list of directives with commas between them.

use std::fmt;
use std::str::FromStr;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The levels of all targets.
#[derive(Debug, Clone)]
pub(super) struct LogLevel(Targets);

impl Default for LogLevel {
    /// The migration library logs each step at `info`; the runner logs a summary.
    fn default() -> Self {
        Self(Targets::new().with_default(Level::INFO).with_target("sea_orm_migration", Level::WARN))
    }
}

impl From<LogLevel> for Targets {
    fn from(level: LogLevel) -> Self {
        level.0
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Stricter than [`Targets`], which takes any other word as a target whose lines are all logged, and then logs no other
    /// target (tokio-rs/tracing, tracing-subscriber/src/filter/directive.rs, `StaticDirective::from_str`): a misspelt level
    /// would turn the log off. For this reason a target without a level is an error.
    fn from_str(text: &str) -> Result<Self, String> {
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        for directive in &directives {
            let (target, level) = directive.split_once('=').unwrap_or(("all", directive));
            // The parser takes an empty text as the level `error`.
            let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
            if target.is_empty() || !is_level(level) {
                return Err(error_text(directive));
            }
        }
        directives.join(",").parse().map(Self).map_err(|_| error_text(text))
    }
}

fn error_text(directive: &str) -> String {
    format!(
        "{directive:?} is neither a level (error, warn, info, debug, trace, off) nor a target with its level, as the second \
         in info,sqlx=debug"
    )
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
