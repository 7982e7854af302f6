//! How long, for people. What does not live here: moments.

use std::time::Duration;

/// In its two largest units: `350ms`, `12s`, `5m10s`, `3h12m`, `2d4h`.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{smaller}"),
    };
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// As `age`; milliseconds, of which a negative number is none.
pub(super) fn of_millis(millis: i64) -> String {
    age(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_enough() {
        for (millis, text) in [
            (350, "350ms"),
            (12_900, "12s"),
            (310_000, "5m10s"),
            (300_000, "5m"),
            (11_520_000, "3h12m"),
            (187_200_000, "2d4h"),
            (-5, "0ms"),
        ] {
            assert_eq!(of_millis(millis), text);
        }
    }
}
