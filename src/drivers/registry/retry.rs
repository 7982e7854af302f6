//! How long to wait before another try, and which hosts asked to be left alone for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Nobody who waits for a pod waits longer than this for one host's limit; the kubelet tries again by itself.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Hosts that answered with Retry-After, and until when they want no requests.
#[derive(Default)]
pub(super) struct Pauses(Mutex<HashMap<String, Instant>>);

impl Pauses {
    /// The rest of the wait that a host asked for.
    pub(super) fn rest(&self, host: &str) -> Option<Duration> {
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pauses.retain(|_, until| *until > now);
        pauses.get(host).map(|until| *until - now)
    }

    pub(super) fn set(&self, host: &str, wait: Duration) {
        // A hostile day-long wait must not outlive the next tries of the kubelet by much.
        let until = Instant::now() + wait.min(Duration::from_secs(300));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_string(), until);
    }
}

/// How long to wait before try `attempt` (from 1), or none if the host asks for more than we give.
pub(super) fn delay(attempt: u32, asked: Option<Duration>) -> Option<Duration> {
    match asked {
        Some(asked) if asked > LONGEST_WAIT => None,
        Some(asked) => Some(asked + jitter(Duration::from_millis(200))),
        None => {
            let full = FIRST_WAIT.saturating_mul(1 << attempt.clamp(1, 6)) / 2;
            Some(full / 2 + jitter(full / 2))
        }
    }
}

/// A part of a duration, by chance: many nodes must not come back at the same moment.
fn jitter(most: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    most.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// Retry-After, in seconds or as a date (RFC 9110 10.2.3).
pub(super) fn after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(86_400)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default().min(Duration::from_secs(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_what_the_host_asks_for_counts() {
        for attempt in 1..10 {
            let wait = delay(attempt, None).unwrap();
            assert!(
                wait >= Duration::from_millis(100) && wait <= Duration::from_secs(7),
                "{attempt}: {wait:?}"
            );
        }
        assert!(delay(1, Some(Duration::from_secs(2))).unwrap() >= Duration::from_secs(2));
        assert_eq!(delay(1, Some(Duration::from_secs(3600))), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let header = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        assert_eq!(after(&header("7")), Some(Duration::from_secs(7)));
        assert_eq!(after(&header("99999999999999")), Some(Duration::from_secs(86_400)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(after(&header(&date)).unwrap() > Duration::from_secs(50));
        assert_eq!(after(&header("Thu, 01 Jan 1970 00:00:00 GMT")), Some(Duration::ZERO));
        assert_eq!(after(&header("soon")), None);
    }
}
