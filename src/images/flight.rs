//! One piece of work for each key at a time, in its own task: it goes on when those who wait for it go away, and
//! whoever comes meanwhile waits for the same result. What does not live here: the work.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tracing::Instrument;

use super::error::ImageError;
use crate::activity;

type Flight<T> = Shared<BoxFuture<'static, Option<Result<T, ImageError>>>>;

/// Running work, by key.
pub struct Flights<K, T> {
    running: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the work on `key`, or starts it. Work that somebody else started may fail for their reasons: then ours is
    /// tried once.
    pub async fn run<F>(&self, key: K, image: &str, work: impl Fn() -> F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, ImageError>> + Send + 'static,
    {
        let interrupted = || ImageError::Interrupted { image: image.to_string() };
        let (flight, started) = self.join(&key, &work);
        match flight.await {
            Some(Err(_)) | None if !started => {
                let (flight, _) = self.join(&key, &work);
                flight.await.ok_or_else(interrupted)?
            }
            result => result.ok_or_else(interrupted)?,
        }
    }

    fn join<F>(&self, key: &K, work: impl Fn() -> F) -> (Flight<T>, bool)
    where
        F: Future<Output = Result<T, ImageError>> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = running.get(key) {
            return (flight.clone(), false);
        }
        let landing = Landing { running: Arc::clone(&self.running), key: key.clone() };
        let work = activity::part(activity::current_verb(), work());
        let work = async move {
            // Also when the work panics: a key that never lands would block its image for ever.
            let _landing = landing;
            work.await
        };
        let task = tokio::spawn(work.in_current_span());
        let flight = task.map(Result::ok).boxed().shared();
        running.insert(key.clone(), flight.clone());
        (flight, true)
    }
}

struct Landing<K: Eq + Hash, T> {
    running: Arc<Mutex<HashMap<K, Flight<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    async fn count(runs: Arc<AtomicUsize>) -> Result<usize, ImageError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
    }

    #[tokio::test]
    async fn many_callers_share_one_run_and_it_outlives_them() {
        let flights = Arc::new(Flights::<u8, usize>::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let call = || {
            let (flights, runs) = (Arc::clone(&flights), Arc::clone(&runs));
            async move { flights.run(1, "x", || count(Arc::clone(&runs))).await.unwrap() }
        };
        let impatient = tokio::time::timeout(Duration::from_millis(5), call()).await;
        assert!(impatient.is_err());
        let all = futures_util::future::join_all((0..20).map(|_| call())).await;
        assert!(all.iter().all(|run| *run == 1));
        assert_eq!(call().await, 2);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_call_works() {
        let flights = Flights::<u8, u8>::default();
        let bad = flights.run(1, "x", || async { panic!("on purpose") }).await;
        assert!(matches!(bad, Err(ImageError::Interrupted { .. })));
        assert_eq!(flights.run(1, "x", || async { Ok(7) }).await.unwrap(), 7);
    }
}
