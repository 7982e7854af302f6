//! RemovePodSandbox: stops it, removes its containers, gives back everything, the record last.

use std::sync::Arc;

use super::{Cause, Pod, PodError, PodRecord, Pods};
use crate::drivers::store::Durability;
use crate::events::Happening;

impl Pods {
    /// Fine if it is unknown.
    pub async fn remove(self: &Arc<Self>, id: &str) -> Result<(), PodError> {
        let pod = match self.find(id) {
            Err(error) if matches!(*error.cause, Cause::Unknown) => return Ok(()),
            found => found?,
        };
        self.stop_pod(&pod).await?;
        let (this, task) = (self.clone(), pod.clone());
        let removed = tokio::spawn(async move { this.remove_one(&task).await });
        removed.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(pod.id()))
    }

    async fn remove_one(&self, pod: &Pod) -> Result<(), Cause> {
        let _verb = pod.verb.lock().await;
        let id = pod.id();
        for container in self.containers.of_pod(id) {
            self.containers.remove_container(&container).await?;
        }
        self.drivers.cgroups.remove_pod(&pod.sandbox.cgroup).await?;
        self.drivers.pod_files.unpin_network(id)?;
        self.drivers.pod_files.remove(id)?;
        self.drivers.shims.remove_directory(id)?;
        self.drivers.store.delete::<PodRecord>(id.as_str(), Durability::Process).await?;
        let mut turn = self.containers.events().turn();
        // Told while it can still be seen: the kubelet wants to know whose pod it was.
        turn.tell(Happening::Deleted, id, id);
        self.table().remove(id);
        Ok(())
    }
}
