//! StopPodSandbox: kills its containers, takes its network apart, ends its shim. It stays, not ready, until removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::Instrument;

use super::pod::State;
use super::{Cause, Pod, PodError, PodRecord, Pods};
use crate::activity::{self, Verb};
use crate::clock;
use crate::containers;
use crate::drivers::network::Attachment;
use crate::drivers::shim::{Shim, ShimError};
use crate::drivers::store::{Durability, StoreError};
use crate::events::Happening;

/// How long a killed pod may take to vanish.
pub(super) const DEATH: Duration = Duration::from_secs(20);

impl Pods {
    /// Fine if it is unknown or already stopped.
    pub async fn stop(self: &Arc<Self>, id: &str) -> Result<(), PodError> {
        let pod = match self.find(id) {
            Err(error) if matches!(*error.cause, Cause::Unknown) => return Ok(()),
            found => found?,
        };
        self.stop_pod(&pod).await
    }

    /// As `stop`, in a task of its own.
    pub(super) async fn stop_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), PodError> {
        let (this, task) = (self.clone(), pod.clone());
        let stop = async move { this.stop_one(&task).await };
        let stop = activity::track(Verb::StopPodSandbox, pod.name(), pod.id().as_str(), stop);
        let stopped = tokio::spawn(stop.in_current_span());
        stopped.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(pod.id()))
    }

    async fn stop_one(&self, pod: &Arc<Pod>) -> Result<(), Cause> {
        let _verb = activity::lock(&pod.verb, "pod").await;
        activity::step("containers");
        let hung = match self.kill_containers(pod).await {
            // Their processes are dead, but a shim that hangs tells nobody: it goes with them.
            Err(cause) if is_shim_timeout(&cause) => true,
            killed => killed.map(|()| false)?,
        };
        activity::step("network");
        self.disconnect(pod).await?;
        activity::step("shim");
        // Once there is no shim, no container starts any more.
        if let Some(shim) = pod.sandbox.set_shim(None) {
            self.end_shim_of(pod, &shim, hung).await?;
        }
        self.containers.on_shim_lost(&pod.sandbox).await;
        Ok(self.set_not_ready(pod, None).await?)
    }

    /// Recorded before anybody can see it.
    pub(super) async fn set_not_ready(
        &self,
        pod: &Pod,
        network: Option<Attachment>,
    ) -> Result<(), StoreError> {
        let since = if pod.is_ready() { clock::now() } else { pod.since() };
        let state = State::NotReady { network, since };
        let record = PodRecord { state: state.clone(), ..pod.record() };
        let recorded = self.drivers.store.put(pod.id().as_str(), &record, Durability::Process).await;
        let mut turn = self.containers.events().turn();
        let was_ready = pod.is_ready();
        *pod.state() = state;
        if was_ready {
            turn.tell(Happening::Stopped, pod.id(), pod.id());
        }
        recorded
    }

    /// Asks the shim to end; one that hangs is killed with all of its pod.
    async fn end_shim_of(&self, pod: &Pod, shim: &Shim, hung: bool) -> Result<(), Cause> {
        if !hung {
            match shim.shut_down().await {
                Err(ShimError::Timeout { .. }) => {}
                ended => return Ok(ended?),
            }
        }
        tracing::warn!(shim = shim.pid(), "the shim does not answer and is killed");
        self.drivers.cgroups.kill(&pod.sandbox.cgroup).await?;
        Ok(self.drivers.cgroups.wait_empty(&pod.sandbox.cgroup, DEATH).await?)
    }

    async fn kill_containers(&self, pod: &Pod) -> Result<(), Cause> {
        let mut kills = JoinSet::new();
        for container in self.containers.of_pod(pod.id()) {
            let containers = self.containers.clone();
            let span = container.span();
            let kill = async move { containers.stop_container(&container, Duration::ZERO).await };
            kills.spawn(kill.instrument(span));
        }
        let mut all = Ok(());
        while let Some(killed) = kills.join_next().await {
            all = all.and(killed.map_err(|_| Cause::Stopping)?.map_err(Cause::from));
        }
        all
    }

    async fn disconnect(&self, pod: &Pod) -> Result<(), Cause> {
        if let Some(attachment) = pod.network() {
            let network = self.network_of(pod.id(), &pod.sandbox.spec);
            self.drivers.network.detach(&network, Some(&attachment)).await.map_err(Box::new)?;
        }
        self.drivers.pod_files.drop_shm(pod.id())?;
        self.drivers.pod_files.unpin_network(pod.id())?;
        Ok(())
    }
}

fn is_shim_timeout(cause: &Cause) -> bool {
    matches!(cause, Cause::Container(error)
        if matches!(*error.cause, containers::Cause::Shim(ShimError::Timeout { .. })))
}
