//! Undoing in reverse what a verb has done so far, when a later step of it fails.

use std::future::Future;
use std::pin::Pin;

type Step = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Steps back; run them by `undo`, or let them go by `disarm` once the work is recorded.
#[derive(Default)]
#[must_use = "a rollback that is dropped undoes nothing"]
pub struct Rollback {
    steps: Vec<Step>,
}

impl Rollback {
    /// Nothing to undo yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers how to undo what has just been done. The step logs its own failure: there is nobody to tell.
    pub fn push(&mut self, step: impl Future<Output = ()> + Send + 'static) {
        self.steps.push(Box::pin(step));
    }

    /// Runs the steps, last one first.
    pub async fn undo(mut self) {
        while let Some(step) = self.steps.pop() {
            step.await;
        }
    }

    /// The work stands.
    pub fn disarm(mut self) {
        self.steps.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Rollback;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn steps_run_in_reverse_and_only_when_not_disarmed() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let fill = |rollback: &mut Rollback| {
            let note = |step, order: Arc<Mutex<Vec<i32>>>| async move { order.lock().unwrap().push(step) };
            (0..3).for_each(|step| rollback.push(note(step, order.clone())));
        };
        let mut rollback = Rollback::new();
        fill(&mut rollback);
        rollback.disarm();
        assert!(order.lock().unwrap().is_empty());
        let mut rollback = Rollback::new();
        fill(&mut rollback);
        rollback.undo().await;
        assert_eq!(*order.lock().unwrap(), [2, 1, 0]);
    }
}
