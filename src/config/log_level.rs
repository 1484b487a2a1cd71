//! LOG_LEVEL: a level, or directives with commas between them.

use std::fmt;
use std::str::FromStr;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// What is logged.
#[derive(Debug, Clone)]
pub(super) struct LogLevel(Targets);

impl Default for LogLevel {
    /// The migration library narrates each step at `info`; the runner's own summary says it once.
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

    /// Takes less than [`Targets`] does, to which a word that is no level is a target whose every line is logged, and those
    /// of no other (tokio-rs/tracing, tracing-subscriber/src/filter/directive.rs, `StaticDirective::from_str`): a misspelt
    /// level would switch the log off. A target without its level is refused for that.
    fn from_str(text: &str) -> Result<Self, String> {
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        for directive in &directives {
            let (target, level) = directive.split_once('=').unwrap_or(("all", directive));
            // To the parser, nothing is the level `error`.
            let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
            if target.is_empty() || !is_level(level) {
                return Err(refused(directive));
            }
        }
        directives.join(",").parse().map(Self).map_err(|_| refused(text))
    }
}

fn refused(directive: &str) -> String {
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
