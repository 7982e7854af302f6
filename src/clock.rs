//! The wall clock as CRI counts it. Timeouts do not live here: they use tokio's monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since the epoch; at least 1, whatever the node's clock says.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX).max(1)
}

/// A moment in nanoseconds since the epoch for people, to the second: RFC 3339, UTC.
pub fn rfc3339(moment: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(moment.div_euclid(1_000_000_000));
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_moment_is_told_in_utc() {
        assert_eq!(super::rfc3339(1_792_576_860_999_999_999), "2026-10-21T10:01:00Z");
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
