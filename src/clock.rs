//! The time of day, as tokens and the health endpoints give it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in whole seconds. A clock that is set before 1970 counts as 1970.
pub(crate) fn unix_seconds() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs().try_into().unwrap_or(i64::MAX)
}
