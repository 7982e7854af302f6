//! Verbs that outlive their callers: a call runs in a task of its own, a second one with the same key joins it, and a
//! result that nobody was there to receive waits a while for the retry. What does not live here: any particular verb.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::Instrument;

/// How long a result waits for somebody to ask again.
const UNCLAIMED: Duration = Duration::from_secs(120);

type Shared<T> = watch::Receiver<Option<T>>;

/// A call, and a number that no other call has.
struct Call<T> {
    number: u64,
    result: Shared<T>,
}

/// The calls under way, by key. `T` is the shared result.
pub struct Calls<K, T> {
    under_way: Arc<Mutex<HashMap<K, Call<T>>>>,
    started: AtomicU64,
}

/// The task of the call ended without a result: it panicked, or the daemon is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl<K, T> Default for Calls<K, T> {
    fn default() -> Self {
        Self { under_way: Arc::default(), started: AtomicU64::new(0) }
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, T: Clone + Send + Sync + 'static> Calls<K, T> {
    /// Joins the call with this key, or starts it.
    pub async fn join_or_start<F>(&self, key: K, start: impl FnOnce() -> F) -> Result<T, Lost>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (number, mut result) = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let call = under_way.entry(key.clone()).or_insert_with(|| self.spawn(key.clone(), start()));
            (call.number, call.result.clone())
        };
        let value = result.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
        // Received: from here on a call with this key is a new one.
        forget(&self.under_way, &key, number);
        value.ok_or(Lost)
    }

    fn spawn(&self, key: K, call: impl Future<Output = T> + Send + 'static) -> Call<T> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let (sender, result) = watch::channel(None);
        let under_way = self.under_way.clone();
        // The caller's span ends with the call, not with the wait for somebody to claim the result.
        let call = call.in_current_span();
        tokio::spawn(async move {
            sender.send_replace(Some(call.await));
            // Ends as soon as somebody has received it: a result may hold much.
            let _ = tokio::time::timeout(UNCLAIMED, sender.closed()).await;
            forget(&under_way, &key, number);
        });
        Call { number, result }
    }
}

fn forget<K: Eq + Hash, T>(under_way: &Mutex<HashMap<K, Call<T>>>, key: &K, number: u64) {
    let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
    if under_way.get(key).is_some_and(|call| call.number == number) {
        under_way.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    async fn count(runs: Arc<AtomicU32>) -> u32 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[tokio::test]
    async fn two_calls_with_one_key_are_one() {
        let (calls, runs) = (Calls::<&str, u32>::default(), Arc::new(AtomicU32::new(0)));
        let (a, b, c) = tokio::join!(
            calls.join_or_start("x", || count(runs.clone())),
            calls.join_or_start("x", || count(runs.clone())),
            calls.join_or_start("y", || count(runs.clone())),
        );
        assert_eq!(a, b);
        assert!(c.is_ok());
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_retry_receives_what_its_cancelled_caller_did_not() {
        let (calls, runs) = (Calls::<&str, u32>::default(), Arc::new(AtomicU32::new(0)));
        let cancelled =
            tokio::time::timeout(Duration::from_millis(1), calls.join_or_start("x", || count(runs.clone())))
                .await;
        assert!(cancelled.is_err());
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(calls.join_or_start("x", || count(runs.clone())).await, Ok(1));
        assert_eq!(
            calls.join_or_start("x", || count(runs.clone())).await,
            Ok(2),
            "a received result is gone"
        );
    }

    #[tokio::test]
    async fn a_received_result_is_let_go_at_once() {
        let calls = Calls::<&str, Arc<()>>::default();
        let value = calls.join_or_start("x", || async { Arc::new(()) }).await.unwrap();
        for _ in 0..100 {
            if Arc::strong_count(&value) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("somebody still holds the result");
    }

    #[tokio::test]
    async fn a_panicking_call_is_lost_and_can_be_called_again() {
        let calls = Calls::<&str, u32>::default();
        assert_eq!(calls.join_or_start("x", || async { panic!("as the test wants") }).await, Err(Lost));
        assert_eq!(calls.join_or_start("x", || async { 7 }).await, Ok(7));
    }
}
