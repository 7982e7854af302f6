//! UpdatePodSandboxResources: takes note of what the kubelet has done to the pod's cgroup, which is the kubelet's own.

use std::sync::Arc;

use tracing::Instrument;

use super::spec::PodLimits;
use super::{Cause, Pod, PodError, Pods};
use crate::activity::{self, Verb};
use crate::drivers::store::Durability;

impl Pods {
    /// Records what the whole pod may take from now on; what `limits` does not name stays.
    pub async fn update(self: &Arc<Self>, id: &str, limits: PodLimits) -> Result<(), PodError> {
        let pod = self.find(id)?;
        let (this, task) = (self.clone(), pod.clone());
        let update = async move { this.update_one(&task, limits).await };
        let (verb, id) = (Verb::UpdatePodSandboxResources, pod.id().as_str());
        let updated = tokio::spawn(activity::track(verb, pod.name(), id, update).in_current_span());
        updated.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(pod.id()))
    }

    async fn update_one(&self, pod: &Pod, limits: PodLimits) -> Result<(), Cause> {
        let _verb = activity::lock(&pod.verb, "pod").await;
        if !pod.is_ready() {
            return Err(Cause::NotReady);
        }
        let mut record = pod.record();
        record.limits.overhead = limits.overhead.or(record.limits.overhead);
        record.limits.resources = limits.resources.or(record.limits.resources);
        self.drivers.store.put(pod.id().as_str(), &record, Durability::Process).await?;
        pod.set_limits(record.limits);
        Ok(())
    }
}
