//! Work that may wait, on one thread of the lowest priority. What does not live here: which work, and when.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// A queue of jobs, done one after the other. The thread exists while there are any.
#[derive(Clone, Default)]
pub struct Background {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    working: bool,
}

/// The least that nice(2) gives; the priority at the disk follows from it.
pub const LOWEST: i32 = 19;
/// What other threads have.
pub const NORMAL: i32 = 0;

/// For the calling thread, until the next job on it.
pub fn set_nice(nice: i32) {
    // With 0 the kernel means the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "the background thread keeps its priority");
    }
}

impl Background {
    /// Adds a job behind the others. Does not wait.
    pub fn push(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.jobs.push_back(Box::new(job));
        if queue.working {
            return;
        }
        let this = self.clone();
        match std::thread::Builder::new().name("background".into()).spawn(move || this.work()) {
            Ok(_) => queue.working = true,
            // The next push tries again.
            Err(error) => tracing::warn!(%error, "cannot start the background thread"),
        }
    }

    /// Jobs that have not begun.
    pub fn waiting(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).jobs.len()
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            set_nice(LOWEST);
            // A panic has been reported by its hook; the other jobs are not to blame.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = queue.jobs.pop_front();
        queue.working = job.is_some();
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_whatever_one_of_them_does() {
        let background = Background::default();
        let (done, results) = channel();
        for round in 0..3 {
            for number in 0..5 {
                let done = done.clone();
                background.push(move || {
                    assert_ne!(number, 3, "a job that fails");
                    let nice = rustix::process::getpriority_process(None).unwrap();
                    done.send((round, number, nice)).unwrap();
                });
            }
            let expected = [0, 1, 2, 4].map(|number| (round, number, LOWEST));
            let received = expected.map(|_| results.recv_timeout(Duration::from_secs(10)).unwrap());
            assert_eq!(received, expected);
            // Sometimes the thread is gone by the next round, sometimes it is not.
            std::thread::sleep(Duration::from_millis(20 * round));
        }
    }

    #[test]
    fn the_caller_keeps_its_priority() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let (done, result) = channel();
        Background::default().push(move || done.send(()).unwrap());
        result.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
