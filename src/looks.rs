//! Looks at something that may take its time, told at once: one look is under way at most, and while it lasts, what the
//! last one has found is the answer. What does not live here: what is looked at.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a look may take; one that takes longer goes on by itself, and whoever asks next hears of it.
const PROMPT: Duration = Duration::from_secs(1);

/// The look under way, if any, and what the last one has found.
pub struct Looks<T>(Arc<Mutex<Look<T>>>);

struct Look<T> {
    /// When it began; its sender is dropped at the look's end.
    under_way: Option<(Instant, watch::Receiver<()>)>,
    last: Option<T>,
}

/// What is known.
pub struct Seen<T> {
    /// Of the last look that has ended; None: none has.
    pub last: Option<T>,
    /// For how long the look under way has been taking, if it has not ended in time.
    pub waiting: Option<Duration>,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Look { under_way: None, last: None })))
    }
}

impl<T: Clone + Send + 'static> Looks<T> {
    fn state(&self) -> MutexGuard<'_, Look<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the look under way, or begins `look`; waits for a second at most.
    pub async fn look<F>(&self, look: impl FnOnce() -> F) -> Seen<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (began, mut under_way) = self.join(look);
        // The channel carries nothing: its end is the news.
        let ended = tokio::time::timeout(PROMPT, under_way.changed()).await.is_ok();
        Seen { last: self.state().last.clone(), waiting: (!ended).then(|| began.elapsed()) }
    }

    fn join<F>(&self, look: impl FnOnce() -> F) -> (Instant, watch::Receiver<()>)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut state = self.state();
        if let Some(joined) = state.under_way.as_ref().filter(|(_, end)| end.has_changed().is_ok()) {
            return joined.clone();
        }
        let (end, ended) = watch::channel(());
        let joined = (Instant::now(), ended);
        state.under_way = Some(joined.clone());
        let (states, look) = (self.0.clone(), look());
        tokio::spawn(async move {
            let found = look.await;
            states.lock().unwrap_or_else(PoisonError::into_inner).last = Some(found);
            drop(end);
        });
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_hangs_keeps_nobody_and_is_the_only_one() {
        let looks = Looks::default();
        let seen = looks.look(|| async { 1 }).await;
        assert_eq!((seen.last, seen.waiting), (Some(1), None));
        let (release, hang) = tokio::sync::oneshot::channel::<u32>();
        let first = looks.look(|| async { hang.await.unwrap() });
        let second = looks.look(|| async { panic!("a second look") });
        let (first, second) = tokio::join!(first, second);
        assert!(first.last == Some(1) && first.waiting.is_some());
        assert!(second.last == Some(1) && second.waiting.is_some());
        release.send(2).unwrap();
        let seen = looks.look(|| async { 3 }).await;
        assert!(matches!(seen.last, Some(2 | 3)) && seen.waiting.is_none());
    }
}
