//! Chains of errors, from an error to its causes.

use std::error::Error;

/// The text of the innermost cause. It says what happened; the outer errors say where, which the caller knows.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
