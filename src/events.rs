//! The order of what happens to pods and containers: every change that others may see is made in a turn, one turn at a
//! time, and whoever watches sees it in the same order. What does not live here: what a pod looks like (pods/watch.rs).
//!
//! Whoever takes a turn holds no lock of a pod, a container or a table yet: watchers look at all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::ids::PodId;

/// What happened (CRI ContainerEventType).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It exists now.
    Created,
    /// Its process runs, or the sandbox is ready.
    Started,
    /// Its process has ended or never came to be, or the sandbox is not ready any more.
    Stopped,
    /// It exists no more.
    Deleted,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub what: Happening,
    /// Id of the container, or of the sandbox itself.
    pub id: String,
    /// The pod it belongs to.
    pub pod: PodId,
    /// Nanoseconds since the epoch; greater than that of every earlier event and look.
    pub at: i64,
}

/// Called in the turn of each event, and must not wait for anything; false ends it.
pub type Watcher = Box<dyn FnMut(&Event) -> bool + Send>;

/// One line of turns.
#[derive(Default)]
pub struct Events {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: i64,
    closed: bool,
    watchers: Vec<Watcher>,
}

/// The right to change what others see. Not to be held while waiting for anything.
pub struct Turn<'a> {
    inner: MutexGuard<'a, Inner>,
}

impl Events {
    /// Waits for its turn.
    pub fn turn(&self) -> Turn<'_> {
        Turn { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The daemon is stopping: lets every watcher go, and takes none any more.
    pub fn close(&self) {
        let mut turn = self.turn();
        turn.inner.closed = true;
        turn.inner.watchers.clear();
    }
}

impl Turn<'_> {
    /// Tells that something has happened, after it was recorded and made visible.
    pub fn tell(&mut self, what: Happening, id: impl std::fmt::Display, pod: &PodId) {
        if self.inner.watchers.is_empty() {
            return;
        }
        let event = Event { what, id: id.to_string(), pod: pod.clone(), at: self.now() };
        self.inner.watchers.retain_mut(|watcher| watcher(&event));
    }

    /// The time of a look at what is now: between that of the events before and those to come, however the node's
    /// clock jumps.
    pub fn now(&mut self) -> i64 {
        self.inner.last = clock::now().max(self.inner.last + 1);
        self.inner.last
    }

    /// Calls `watcher` with every event from here on.
    pub fn watch(&mut self, watcher: Watcher) {
        if !self.inner.closed {
            self.inner.watchers.push(watcher);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn watched(events: &Events, most: usize) -> Arc<Mutex<Vec<Event>>> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = seen.clone();
        events.turn().watch(Box::new(move |event| {
            let mut list = list.lock().unwrap();
            list.push(event.clone());
            list.len() < most
        }));
        seen
    }

    #[test]
    fn watchers_see_one_order_with_growing_times_until_they_have_enough() {
        let (events, pod) = (Arc::new(Events::default()), PodId::generate());
        events.turn().tell(Happening::Created, "nobody watches", &pod);
        let (all, some) = (watched(&events, usize::MAX), watched(&events, 3));
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (events, pod) = (events.clone(), pod.clone());
                std::thread::spawn(move || {
                    for _ in 0..100 {
                        events.turn().tell(Happening::Started, format!("{number}"), &pod);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (all, some) = (all.lock().unwrap(), some.lock().unwrap());
        assert_eq!(all.len(), 400);
        assert!(all.is_sorted_by(|a, b| a.at < b.at));
        assert_eq!(all[..3], some[..]);
        assert!(events.turn().now() > all[399].at);
    }

    #[test]
    fn after_the_end_nobody_watches() {
        let (events, pod) = (Events::default(), PodId::generate());
        let before = watched(&events, usize::MAX);
        events.close();
        assert_eq!(Arc::strong_count(&before), 1, "the watcher was let go");
        let after = watched(&events, usize::MAX);
        events.turn().tell(Happening::Deleted, "x", &pod);
        assert!(before.lock().unwrap().is_empty() && after.lock().unwrap().is_empty());
    }
}
