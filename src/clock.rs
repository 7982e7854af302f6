//! The wall clock as CRI counts it. Timeouts do not live here: they use tokio's monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch; at least 1, whatever the node's clock says.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX).max(1)
}
