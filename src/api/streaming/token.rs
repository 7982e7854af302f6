//! Tokens: what an RPC has promised a client, for one connection within a minute. What does not live here: what a
//! connection does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::hex;

/// How long a client may take to connect.
const LIFE: Duration = Duration::from_secs(60);
/// Most promises at a time.
const PENDING: usize = 1000;
/// Of randomness.
const BYTES: usize = 16;

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too many.
    #[error("{PENDING} streaming sessions wait for their clients: try again in {} s", LIFE.as_secs())]
    Full,
    /// The kernel gives no randomness.
    #[error("the kernel gives no random bytes for a token")]
    NoRandomness,
}

struct Promise<T> {
    what: T,
    made: Instant,
}

/// The promises that nobody has come for.
pub struct Tokens<T> {
    pending: Mutex<HashMap<String, Promise<T>>>,
}

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self { pending: Mutex::default() }
    }
}

impl<T> Tokens<T> {
    /// Makes a token: 32 hexadecimal digits.
    pub fn promise(&self, what: T) -> Result<String, TokenError> {
        self.promise_at(what, Instant::now())
    }

    fn promise_at(&self, what: T, now: Instant) -> Result<String, TokenError> {
        let mut random = [0; BYTES];
        getrandom::fill(&mut random).map_err(|_| TokenError::NoRandomness)?;
        let token = hex(&random);
        let mut pending = self.alive(now);
        if pending.len() >= PENDING {
            return Err(TokenError::Full);
        }
        pending.insert(token.clone(), Promise { what, made: now });
        Ok(token)
    }

    /// What was promised; only once.
    pub fn redeem(&self, token: &str) -> Option<T> {
        self.redeem_at(token, Instant::now())
    }

    fn redeem_at(&self, token: &str, now: Instant) -> Option<T> {
        self.alive(now).remove(token).map(|promise| promise.what)
    }

    /// Without those whose time is over.
    fn alive(&self, now: Instant) -> MutexGuard<'_, HashMap<String, Promise<T>>> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|_, promise| now.duration_since(promise.made) < LIFE);
        pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_connection() {
        let tokens = Tokens::default();
        let token = tokens.promise("exec").unwrap();
        assert_eq!((token.len(), token.bytes().all(|b| b.is_ascii_hexdigit())), (32, true));
        assert_eq!(tokens.redeem("0123456789abcdef0123456789abcdef"), None);
        assert_eq!(tokens.redeem(&token), Some("exec"));
        assert_eq!(tokens.redeem(&token), None);
        assert_ne!(tokens.promise("exec").unwrap(), token);
    }

    #[test]
    fn a_token_lives_a_minute() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let [early, late] = [59, 60].map(Duration::from_secs);
        let token = tokens.promise_at(1, now).unwrap();
        assert_eq!(tokens.redeem_at(&token, now + early), Some(1));
        let token = tokens.promise_at(2, now).unwrap();
        assert_eq!(tokens.redeem_at(&token, now + late), None);
    }

    #[test]
    fn a_thousand_wait_at_most_and_the_expired_make_room() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let made: Vec<_> = (0..PENDING).map(|n| tokens.promise_at(n, now).unwrap()).collect();
        assert_eq!(tokens.promise_at(0, now), Err(TokenError::Full));
        assert_eq!(tokens.redeem_at(&made[7], now), Some(7));
        assert!(tokens.promise_at(0, now).is_ok());
        assert_eq!(tokens.promise_at(0, now), Err(TokenError::Full));
        assert!(tokens.promise_at(0, now + LIFE).is_ok());
        assert_eq!(tokens.pending.lock().unwrap().len(), 1);
    }
}
