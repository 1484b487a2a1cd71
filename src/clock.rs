//! The time of day, as tokens and the health endpoints give it; and durations, as logs and answers give them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in whole seconds. A clock that is set before 1970 counts as 1970.
pub(crate) fn unix_seconds() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs().try_into().unwrap_or(i64::MAX)
}

/// Milliseconds, to the microsecond: more digits would be noise.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    // In the division the nearest double comes out, which is written with three decimals at most.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::milliseconds;
    use std::time::Duration;

    #[test]
    fn milliseconds_have_three_decimals_at_most() {
        for (nanoseconds, text) in [
            (0, "0.0"),
            (499, "0.0"),
            (40_106, "0.04"),
            (301_777, "0.302"),
            (1_000_000, "1.0"),
            (1_234_567_891, "1234.568"),
            (86_399_999_999_999, "86400000.0"),
        ] {
            assert_eq!(format!("{:?}", milliseconds(Duration::from_nanos(nanoseconds))), text);
        }
        for microseconds in 0..100_000 {
            let text = milliseconds(Duration::from_micros(microseconds)).to_string();
            assert!(text.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 3), "{text}");
        }
    }
}
