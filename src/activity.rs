//! What is being done right now: each verb under way, its step, what it waits for, and since when. Verbs and drivers
//! note it as they go, and whoever looks waits for none of them. What does not live here: what the verbs do.
//!
//! A note belongs to the task that a verb runs in. There is one table, as a process has one daemon.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static UNDER_WAY: Mutex<BTreeMap<u64, Arc<Activity>>> = Mutex::new(BTreeMap::new());
static NUMBERS: AtomicU64 = AtomicU64::new(1);

tokio::task_local! {
    static CURRENT: Arc<Activity>;
}

/// What is done to a pod, a container or an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// RunPodSandbox.
    RunPodSandbox,
    /// StopPodSandbox.
    StopPodSandbox,
    /// RemovePodSandbox.
    RemovePodSandbox,
    /// UpdatePodSandboxResources.
    UpdatePodSandboxResources,
    /// CreateContainer.
    CreateContainer,
    /// StartContainer.
    StartContainer,
    /// StopContainer.
    StopContainer,
    /// RemoveContainer.
    RemoveContainer,
    /// UpdateContainerResources.
    UpdateContainerResources,
    /// ExecSync.
    ExecSync,
    /// A session of exec.
    Exec,
    /// A session of attach.
    Attach,
    /// A session of port-forward.
    PortForward,
    /// PullImage.
    PullImage,
    /// `berth image import`.
    ImportImage,
    /// RemoveImage.
    RemoveImage,
    /// A container's process has ended.
    ContainerExit,
    /// A pod's shim is gone.
    ShimLost,
}

impl Verb {
    /// Whether somebody else than Berth decides how long it takes.
    fn open_ended(self) -> bool {
        matches!(
            self,
            Self::ExecSync
                | Self::Exec
                | Self::Attach
                | Self::PortForward
                | Self::PullImage
                | Self::ImportImage
                | Self::StopContainer
        )
    }
}

/// One verb under way.
pub struct Activity {
    number: u64,
    verb: Verb,
    subject: String,
    began: Instant,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    id: String,
    step: Option<Note>,
    waits: Vec<(u64, Note)>,
}

#[derive(Clone)]
struct Note {
    text: Cow<'static, str>,
    since: Instant,
}

/// A verb under way, at one moment.
#[derive(Clone, Debug)]
pub struct Doing {
    /// What is done.
    pub verb: Verb,
    /// To whom: `namespace/name`, `namespace/name/container`, or an image's name.
    pub subject: String,
    /// Id of the pod or container; empty while it has none.
    pub id: String,
    /// Since it began.
    pub age: Duration,
    /// The step that it is at, and for how long.
    pub step: Option<(String, Duration)>,
    /// What it waits for, the longest first, and for how long.
    pub waits: Vec<(String, Duration)>,
}

impl Doing {
    /// Whether it has taken longer than `patience` though only Berth decides how long it takes.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        !self.verb.open_ended() && self.age > patience
    }
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {} for {}s", self.verb, self.subject, self.age.as_secs())?;
        if let Some((step, age)) = &self.step {
            write!(f, ", at step {step} for {}s", age.as_secs())?;
        }
        match self.waits.first() {
            Some((what, age)) => write!(f, ", waiting for {what} for {}s", age.as_secs()),
            None => Ok(()),
        }
    }
}

impl Activity {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Doing {
        let notes = self.notes();
        let told = |note: &Note| (note.text.to_string(), note.since.elapsed());
        Doing {
            verb: self.verb,
            subject: self.subject.clone(),
            id: notes.id.clone(),
            age: self.began.elapsed(),
            step: notes.step.as_ref().map(told),
            waits: notes.waits.iter().map(|(_, note)| told(note)).collect(),
        }
    }
}

fn table() -> MutexGuard<'static, BTreeMap<u64, Arc<Activity>>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes an activity from the table at its end, whichever way it ends.
struct Entry(u64);

impl Drop for Entry {
    fn drop(&mut self) {
        table().remove(&self.0);
    }
}

/// Runs `work`, which everybody can see until its end. `id` may come later: see [`identify`].
pub fn track<F: Future>(
    verb: Verb,
    subject: String,
    id: &str,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let notes = Mutex::new(Notes { id: id.to_string(), ..Notes::default() });
    let activity = Arc::new(Activity { number, verb, subject, began: Instant::now(), notes });
    table().insert(number, activity.clone());
    let entry = Entry(number);
    async move {
        let _entry = entry;
        CURRENT.scope(activity, work).await
    }
}

/// For work that goes on in a task of its own: what it notes belongs to the verb of this task.
pub async fn part<F: Future>(current: Option<Current>, work: F) -> F::Output {
    match current {
        Some(Current(activity)) => CURRENT.scope(activity, work).await,
        None => work.await,
    }
}

/// The verb that a task runs.
#[derive(Clone)]
pub struct Current(Arc<Activity>);

/// The verb that this task runs, if any.
pub fn current_verb() -> Option<Current> {
    current(|activity| Current(activity.clone()))
}

fn current<T>(note: impl FnOnce(&Arc<Activity>) -> T) -> Option<T> {
    CURRENT.try_with(note).ok()
}

/// The object of the verb that this task runs has an id now.
pub fn identify(id: &impl std::fmt::Display) {
    current(|activity| activity.notes().id = id.to_string());
}

/// The verb that this task runs, if any, has come to this step.
pub fn step(name: &'static str) {
    current(|activity| {
        activity.notes().step = Some(Note { text: Cow::Borrowed(name), since: Instant::now() });
    });
}

/// While it lives, the verb waits for something.
#[must_use = "a wait ends when this is dropped"]
pub struct Waiting {
    activity: Option<Arc<Activity>>,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.notes().waits.retain(|(number, _)| *number != self.number);
        }
    }
}

/// The verb that this task runs, if any, waits from here on for `what`.
pub fn wait(what: impl FnOnce() -> String) -> Waiting {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let activity = current(|activity| {
        let note = Note { text: what().into(), since: Instant::now() };
        activity.notes().waits.push((number, note));
        activity.clone()
    });
    Waiting { activity, number }
}

/// Takes a lock that verbs exclude one another with.
pub async fn lock<'a, T>(
    mutex: &'a tokio::sync::Mutex<T>,
    what: &'static str,
) -> tokio::sync::MutexGuard<'a, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(_) => {
            let _waiting = wait(|| format!("another call on this {what} to end"));
            mutex.lock().await
        }
    }
}

/// Everything under way, the oldest first.
pub fn list() -> Vec<Doing> {
    let all: Vec<_> = table().values().cloned().collect();
    all.iter().map(|activity| activity.now()).collect()
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activity")
            .field("number", &self.number)
            .field("verb", &self.verb)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(subject: &str) -> Vec<Doing> {
        list().into_iter().filter(|doing| doing.subject == subject).collect()
    }

    #[tokio::test]
    async fn a_verb_is_seen_with_its_step_and_what_it_waits_for_until_its_end() {
        let lock_of_pod = Arc::new(tokio::sync::Mutex::new(()));
        let held = lock_of_pod.clone().lock_owned().await;
        let theirs = lock_of_pod.clone();
        let work = tokio::spawn(track(Verb::StopPodSandbox, "a/b".into(), "", async move {
            identify(&"1234");
            step("lock");
            let _verb = lock(&theirs, "pod").await;
            step("network");
            let _waiting = wait(|| "CNI plugin x".into());
            std::future::pending::<()>().await;
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let seen = of("a/b").remove(0);
        assert_eq!((seen.verb, seen.id.as_str()), (Verb::StopPodSandbox, "1234"));
        assert_eq!(seen.step.as_ref().unwrap().0, "lock");
        assert_eq!(seen.waits[0].0, "another call on this pod to end");
        assert!(seen.is_stuck(Duration::ZERO) && !seen.is_stuck(Duration::from_secs(9)));
        drop(held);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let seen = of("a/b").remove(0);
        assert_eq!(seen.waits.len(), 1);
        let text = "StopPodSandbox of a/b for 0s, at step network for 0s, waiting for CNI plugin x for 0s";
        assert_eq!(seen.to_string(), text);
        work.abort();
        assert!(work.await.unwrap_err().is_cancelled());
        assert!(of("a/b").is_empty());
    }

    #[tokio::test]
    async fn without_a_verb_nothing_is_noted() {
        step("nowhere");
        drop(wait(|| unreachable!("nobody asks")));
        let patient = track(Verb::PullImage, "image".into(), "", async { of("image").remove(0) }).await;
        assert!(!patient.is_stuck(Duration::ZERO), "the registry decides how long a pull takes");
    }
}
