//! Whether pods could be connected now, told at once whatever plugins do.

use std::sync::Arc;

use super::{Network, NotReady};

impl Network {
    /// Whether a pod could be connected now; while plugins take their time to say so, what they said last.
    pub async fn ready(self: &Arc<Self>) -> Result<(), NotReady> {
        let this = self.clone();
        let seen = self.looks.look(|| async move { this.status().await }).await;
        seen.last.unwrap_or_else(|| {
            Err(NotReady {
                reason: "NetworkPluginNotReady",
                message: "the network plugins have not answered STATUS yet".to_string(),
            })
        })
    }
}
