//! Durations as configuration files spell them: `300ms`, `30s`, `5m`, `1h30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Takes the spelling; none for anything else, and for more than a year.
pub fn parse(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let milliseconds = match &tail[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &tail[unit..];
    }
    (total <= Duration::from_secs(366 * 86_400)).then_some(total)
}

/// In the largest unit that leaves no rest.
pub fn format(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_string(),
        hours if hours % 3_600_000 == 0 => format!("{}h", hours / 3_600_000),
        minutes if minutes % 60_000 == 0 => format!("{}m", minutes / 60_000),
        seconds if seconds % 1000 == 0 => format!("{}s", seconds / 1000),
        milliseconds => format!("{milliseconds}ms"),
    }
}

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with)]`; zero is refused.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse(&text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(de::Error::custom(format!("{text:?} is no duration such as 300ms, 30s or 5m"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for text in ["300ms", "30s", "5m", "90m", "4h", "1001ms"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn only_whole_numbers_with_units_are_durations() {
        assert_eq!(parse("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(parse("1h30m"), Some(Duration::from_secs(5400)));
        for bad in ["", "5", "s", "-5s", "1.5s", "5d", "99999999999999999999s", "999999999h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
