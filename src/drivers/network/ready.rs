//! Whether pods could be connected now, told at once whatever plugins do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Network, NotReady};
use crate::calls::Calls;

/// How long a look may take; one that takes longer goes on by itself, and whoever asks next hears of it.
const PROMPT: Duration = Duration::from_secs(1);

/// Looks under way, and what the last one has found.
#[derive(Default)]
pub(super) struct Looks {
    under_way: Calls<(), Result<(), NotReady>>,
    last: Mutex<Option<Result<(), NotReady>>>,
}

impl Network {
    /// Whether a pod could be connected now; while plugins take their time to say so, what they said last.
    pub async fn ready(self: &Arc<Self>) -> Result<(), NotReady> {
        let this = self.clone();
        let look = self.looks.under_way.join_or_start((), || async move {
            let found = this.status().await;
            *this.looks.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
            found
        });
        if let Ok(Ok(found)) = tokio::time::timeout(PROMPT, look).await {
            return found;
        }
        let last = self.looks.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.unwrap_or_else(|| {
            Err(NotReady {
                reason: "NetworkPluginNotReady",
                message: "the network plugins have not answered STATUS yet".to_string(),
            })
        })
    }
}
