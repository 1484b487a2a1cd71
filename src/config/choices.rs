//! Settings whose value is one of a few words.

use clap::ValueEnum;
use std::fmt;
use std::str::FromStr;

/// The kind of deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Environment {
    /// A developer's machine: an embedded database, readable logs, error details in responses.
    Development,
    /// A rehearsal of production.
    Staging,
    /// Real data.
    Production,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Choice(*self).fmt(f)
    }
}

/// What `start` does about the schema before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrateOnStart {
    /// Applies pending migrations.
    #[value(alias = "true")]
    Apply,
    /// Changes nothing; waits until the schema fits this build in every respect.
    Verify,
    /// Changes nothing; waits until no migration of this build is pending, and checks nothing else.
    #[value(alias = "false")]
    Off,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// Short and coloured, for a terminal.
    Pretty,
}

/// Reads and displays an enum by the words that clap gives its variants.
#[derive(Clone, Copy)]
pub(super) struct Choice<T>(pub(super) T);

impl<T: ValueEnum> Choice<T> {
    /// All words, as in `development, staging or production`.
    pub(super) fn words() -> String {
        let words: Vec<String> = T::value_variants().iter().map(|value| Choice(value.clone()).to_string()).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        }
    }
}

impl<T: ValueEnum> FromStr for Choice<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        T::from_str(text, false).map(Self)
    }
}

impl<T: ValueEnum> fmt::Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}
