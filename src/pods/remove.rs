//! RemovePodSandbox: stops it, removes its containers, gives back everything, the record last.

use std::sync::Arc;

use tracing::Instrument;

use super::stop::DEATH;
use super::{Cause, Pod, PodError, PodRecord, Pods};
use crate::activity::{self, Verb};
use crate::drivers::cgroup::CgroupError;
use crate::drivers::store::Durability;
use crate::events::Happening;
use crate::telemetry::Leak;

impl Pods {
    /// Fine if it is unknown.
    pub async fn remove(self: &Arc<Self>, id: &str) -> Result<(), PodError> {
        let pod = match self.find(id) {
            Err(error) if matches!(*error.cause, Cause::Unknown) => return Ok(()),
            found => found?,
        };
        self.stop_pod(&pod).await?;
        let (this, task) = (self.clone(), pod.clone());
        let remove = async move { this.remove_one(&task).await };
        let track = activity::track(Verb::RemovePodSandbox, pod.name(), pod.id().as_str(), remove);
        let removed = tokio::spawn(track.in_current_span());
        removed.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(pod.id()))
    }

    /// A shim that hung while a daemon looked for it is still there, with nobody left to ask it to end.
    async fn remove_cgroup_of(&self, pod: &Pod) -> Result<(), CgroupError> {
        let (cgroups, cgroup) = (&self.drivers.cgroups, &pod.sandbox.cgroup);
        match cgroups.remove_pod(cgroup).await {
            Err(CgroupError::Leftover { processes, .. }) => {
                tracing::warn!(?processes, "what is left of the pod is killed");
                let end = async {
                    cgroups.kill(cgroup).await?;
                    cgroups.wait_empty(cgroup, DEATH).await?;
                    cgroups.remove_pod(cgroup).await
                };
                let ended = end.await;
                Leak::Shim.note(&ended);
                ended
            }
            removed => removed,
        }
    }

    async fn remove_one(&self, pod: &Pod) -> Result<(), Cause> {
        let _verb = activity::lock(&pod.verb, "pod").await;
        activity::step("containers");
        let id = pod.id();
        for container in self.containers.of_pod(id) {
            self.containers.remove_container(&container).await?;
        }
        activity::step("cgroup");
        self.remove_cgroup_of(pod).await?;
        activity::step("files");
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
