//! What a pod and its containers look like at one moment, and a stream of such looks, one for each event.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{Pod, PodError, Pods};
use crate::containers::ContainerSnapshot;
use crate::events::Event;

/// Events that wait for one slow watcher; one more ends its stream.
const BACKLOG: usize = 1000;
/// How long after the end of its stream a client may come back and miss nothing: the kubelet lists everything before
/// it watches again, and would hear of what happens in between at its next list, minutes later.
const ABSENCE: Duration = Duration::from_secs(60);
/// Events kept for a client that is away, the latest ones.
const KEPT: usize = 256;

/// A pod and all its containers at one moment.
pub struct PodSnapshot {
    /// Its fixed facts.
    pub pod: Arc<Pod>,
    /// May it have containers?
    pub ready: bool,
    /// Its own addresses, the primary one first; none in the host's network, or once it was stopped.
    pub ips: Vec<IpAddr>,
    /// Oldest first.
    pub containers: Vec<ContainerSnapshot>,
    /// Nanoseconds since the epoch; greater than that of every earlier event and look.
    pub at: i64,
}

/// An event, and the pod right after it; None where the pod is not known any more.
pub struct Sight {
    /// What happened.
    pub event: Event,
    /// What the pod looks like since.
    pub pod: Option<PodSnapshot>,
}

/// Events as they happen. Dropping it ends it.
pub struct Watch {
    sights: mpsc::Receiver<Arc<Sight>>,
    overflowed: Arc<AtomicBool>,
    /// Its end tells `Pods` that the client is away.
    _present: oneshot::Sender<()>,
}

/// Why there are no more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The watcher was too slow, and has missed some.
    #[error("events came faster than they were read, and some are lost: list everything, then watch again")]
    Overflow,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl Watch {
    /// The next event.
    pub async fn next(&mut self) -> Result<Arc<Sight>, WatchEnd> {
        let sight = self.sights.recv().await;
        // What is left in the queue is of no use to somebody who has to list everything anyway.
        if self.overflowed.load(Ordering::Acquire) {
            return Err(WatchEnd::Overflow);
        }
        sight.ok_or(WatchEnd::Stopping)
    }
}

/// For `Pods`: the events since a watch has ended, and the latest one, which all watchers share.
#[derive(Default)]
pub(super) struct Watched {
    /// Set while a client is away.
    kept_until: Option<Instant>,
    kept: VecDeque<Arc<Sight>>,
    latest: Weak<Sight>,
}

impl Pods {
    /// The pod with this id (or whose id alone begins so) and its containers at one moment.
    pub fn look(&self, id: &str) -> Result<PodSnapshot, PodError> {
        let pod = self.find(id)?;
        let mut turn = self.containers.events().turn();
        Ok(self.snapshot(pod, turn.now()))
    }

    /// Every event from here on, after those that came since another watch has ended within the last minute.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let (sender, sights) = mpsc::channel(BACKLOG);
        let (_present, gone) = oneshot::channel();
        let overflowed = Arc::new(AtomicBool::new(false));
        let mut turn = self.containers.events().turn();
        let kept = {
            let mut watched = self.watched();
            watched.kept_until = None;
            std::mem::take(&mut watched.kept)
        };
        for sight in kept {
            // There are fewer than the queue takes.
            let _ = sender.try_send(sight);
        }
        let (this, flag) = (Arc::downgrade(self), overflowed.clone());
        turn.watch(Box::new(move |event| {
            let Some(pods) = this.upgrade() else { return false };
            let sent = sender.try_send(pods.sight(event));
            flag.store(matches!(sent, Err(mpsc::error::TrySendError::Full(_))), Ordering::Release);
            sent.is_ok()
        }));
        tokio::spawn(keep_while_away(Arc::downgrade(self), gone));
        Watch { sights, overflowed, _present }
    }

    /// Keeps events for a client whose watch has ended.
    fn keep(self: &Arc<Self>) {
        let mut turn = self.containers.events().turn();
        let first = self.watched().kept_until.replace(Instant::now() + ABSENCE).is_none();
        let this = Arc::downgrade(self);
        if first {
            turn.watch(Box::new(move |event| this.upgrade().is_some_and(|pods| pods.keep_one(event))));
        }
    }

    /// False once nobody is away any more.
    fn keep_one(&self, event: &Event) -> bool {
        let sight = self.sight(event);
        let mut watched = self.watched();
        if watched.kept_until.is_none() {
            return false;
        }
        // Of two keepers, one that nobody has told yet that it was over, the first to come keeps it.
        if watched.kept.back().is_none_or(|last| last.event.at < event.at) {
            watched.kept.push_back(sight);
        }
        if watched.kept.len() > KEPT {
            watched.kept.pop_front();
        }
        true
    }

    fn stop_keeping(&self) {
        let mut watched = self.watched();
        if watched.kept_until.is_some_and(|until| until <= Instant::now()) {
            watched.kept_until = None;
            watched.kept.clear();
        }
    }

    /// Called in the event's turn.
    fn sight(&self, event: &Event) -> Arc<Sight> {
        if let Some(sight) = self.watched().latest.upgrade().filter(|sight| sight.event.at == event.at) {
            return sight;
        }
        let pod = self.table().get(&event.pod).cloned();
        let pod = pod.map(|pod| self.snapshot(pod, event.at));
        let sight = Arc::new(Sight { event: event.clone(), pod });
        self.watched().latest = Arc::downgrade(&sight);
        sight
    }

    fn snapshot(&self, pod: Arc<Pod>, at: i64) -> PodSnapshot {
        let (ready, ips) = (pod.is_ready(), pod.ips());
        let containers = self.containers.of_pod(pod.id());
        let containers = containers.into_iter().map(ContainerSnapshot::now).collect();
        PodSnapshot { pod, ready, ips, containers, at }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep_while_away(pods: Weak<Pods>, gone: oneshot::Receiver<()>) {
    // An error: the sender was dropped, with the watch.
    let _ = gone.await;
    if let Some(pods) = pods.upgrade() {
        pods.keep();
    }
    tokio::time::sleep(ABSENCE).await;
    if let Some(pods) = pods.upgrade() {
        pods.stop_keeping();
    }
}
