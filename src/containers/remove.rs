//! RemoveContainer: kills what runs, then gives back everything, the record last.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use super::state::Phase;
use super::{Cause, Container, ContainerError, ContainerRecord, Containers};
use crate::activity::{self, Verb};
use crate::drivers::shim::ShimError;
use crate::drivers::store::Durability;
use crate::events::Happening;

impl Containers {
    /// Fine if it is unknown.
    pub async fn remove(self: &Arc<Self>, id: &str) -> Result<(), ContainerError> {
        let container = match self.find(id) {
            Err(error) if matches!(*error.cause, Cause::Unknown) => return Ok(()),
            found => found?,
        };
        self.remove_container(&container).await
    }

    /// As `remove`, in a task of its own.
    pub async fn remove_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(), ContainerError> {
        self.stop_container(container, Duration::ZERO).await?;
        let (this, task) = (self.clone(), container.clone());
        let remove = async move { this.remove_one(&task).await };
        let (verb, id) = (Verb::RemoveContainer, container.id.as_str());
        let removed = tokio::spawn(activity::track(verb, container.name(), id, remove).in_current_span());
        removed.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(&container.id))
    }

    async fn remove_one(&self, container: &Container) -> Result<(), Cause> {
        let _verb = activity::lock(&container.verb, "container").await;
        activity::step("root");
        if let Phase::Running(_) = container.phase() {
            return Err(Cause::State { is: "running", wanted: "stopped" });
        }
        // Dropped here so that the root is unmounted before its directories go.
        container.state().unmount();
        activity::step("shim");
        if let Some(shim) = container.sandbox.shim() {
            match shim.delete(container.id.as_str()).await {
                Ok(()) | Err(ShimError::Gone { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        activity::step("cgroup");
        self.drivers.cgroups.kill(&container.cgroup).await?;
        self.drivers.cgroups.remove_container(&container.cgroup).await?;
        activity::step("files");
        // Its files may take longer to vanish than this call.
        container.span().in_scope(|| self.drivers.bundles.remove(&container.id))?;
        self.drivers.store.delete::<ContainerRecord>(container.id.as_str(), Durability::Process).await?;
        let mut turn = self.events.turn();
        self.table().remove(&container.id);
        turn.tell(Happening::Deleted, &container.id, &container.sandbox.id);
        Ok(())
    }
}
