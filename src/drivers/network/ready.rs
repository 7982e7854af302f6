//! Whether pods could be connected now, told at once whatever plugins do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Network, NotReady};

/// How long a look may take; one that takes longer goes on by itself, and whoever asks next hears of it.
const PROMPT: Duration = Duration::from_secs(1);

/// The look under way, if any, and what the last one has found.
#[derive(Default)]
pub(super) struct Looks(Mutex<Look>);

#[derive(Default)]
struct Look {
    /// Its sender is dropped at the look's end.
    under_way: Option<watch::Receiver<()>>,
    last: Option<Result<(), NotReady>>,
}

impl Looks {
    fn look(&self) -> MutexGuard<'_, Look> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    /// Whether a pod could be connected now; while plugins take their time to say so, what they said last.
    pub async fn ready(self: &Arc<Self>) -> Result<(), NotReady> {
        let mut under_way = self.join_look();
        // The channel carries nothing: its end is the news.
        let _ = tokio::time::timeout(PROMPT, under_way.changed()).await;
        let last = self.looks.look().last.clone();
        last.unwrap_or_else(|| {
            Err(NotReady {
                reason: "NetworkPluginNotReady",
                message: "the network plugins have not answered STATUS yet".to_string(),
            })
        })
    }

    /// The look under way, or a new one.
    fn join_look(self: &Arc<Self>) -> watch::Receiver<()> {
        let mut look = self.looks.look();
        if let Some(under_way) = look.under_way.as_ref().filter(|one| one.has_changed().is_ok()) {
            return under_way.clone();
        }
        let (end, under_way) = watch::channel(());
        look.under_way = Some(under_way.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let found = this.status().await;
            this.looks.look().last = Some(found);
            drop(end);
        });
        under_way
    }
}
