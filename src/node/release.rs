//! A whole release taken back, one node after another: its DaemonSet is told to uninstall, and rolled. Runs in a hook before the
//! chart is deleted, for a pod that ends can't tell deletion from upgrade. What does not live here: one host.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, DaemonSet, Rollout};
use super::{Credentials, NodeError};

/// The variable that the chart's DaemonSet hands to `berth node install`.
pub const VARIABLE: &str = "BERTH_NODE_UNINSTALL";
/// The container that has it.
const CONTAINER: &str = "agent";
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// The API server may be one of the pods that are moved.
const SILENCE: Duration = Duration::from_secs(300);

/// Returns when every node is as it was.
pub async fn restore_all(credentials: Credentials, namespace: &str, name: &str) -> Result<(), NodeError> {
    let cluster = Cluster::new(credentials)?;
    let set = DaemonSet { namespace: namespace.into(), name: name.into(), container: CONTAINER.into() };
    cluster.set_variable(&set, VARIABLE, "true").await?;
    let (mut told, mut heard) = (None, Instant::now());
    loop {
        match cluster.rollout(&set).await {
            Ok(rollout) => {
                heard = Instant::now();
                if told != Some(rollout) {
                    tracing::info!(nodes = rollout.desired, restored = restored(rollout), "uninstalling");
                    told = Some(rollout);
                }
                if rollout.observed && restored(rollout) == rollout.desired {
                    return Ok(());
                }
            }
            Err(error) if heard.elapsed() > SILENCE => return Err(error),
            Err(error) => tracing::warn!(error = crate::error::chain(&error), "asking again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A rollout makes updated pods ready; old ones that are ready too are no news while some are not updated.
fn restored(rollout: Rollout) -> u64 {
    if rollout.updated < rollout.desired { rollout.updated.min(rollout.ready) } else { rollout.ready }
}
