//! UpdateContainerResources: the kernel, config.json, the record and what others see change together, or nothing does.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::Instrument;

use super::oci;
use super::spec::Resources;
use super::state::Phase;
use super::{Cause, Container, ContainerError, Containers};
use crate::activity::{self, Verb};
use crate::drivers::store::Durability;

impl Containers {
    /// Changes the limits that `change` names of a created or running container, in a task of its own.
    ///
    /// The OOM score belongs to processes, not to the cgroup: a running container keeps its own, a created one starts
    /// with the new one.
    pub async fn update(
        self: &Arc<Self>,
        id: &str,
        change: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), ContainerError> {
        let container = self.find(id)?;
        let (this, task) = (self.clone(), container.clone());
        let update = async move { this.update_one(&task, change, annotations).await };
        let (verb, id) = (Verb::UpdateContainerResources, container.id.as_str());
        let updated = tokio::spawn(activity::track(verb, container.name(), id, update).in_current_span());
        updated.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(&container.id))
    }

    async fn update_one(
        &self,
        container: &Container,
        mut change: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), Cause> {
        let _verb = activity::lock(&container.verb, "container").await;
        match container.phase() {
            Phase::Created => {}
            Phase::Running(_) => change.oom_score_adj = None,
            Phase::Exited(_) => return Err(Cause::State { is: "exited", wanted: "created or running" }),
        }
        let limits = container.resources().changed(&change, container.cgroup.v2());
        let undo = self.drivers.cgroups.update(&container.cgroup, &change).await?;
        match self.keep_limits(container, limits, annotations).await {
            Ok(()) => {
                undo.forget();
                Ok(())
            }
            Err(cause) => {
                self.drivers.cgroups.revert(undo).await?;
                Err(cause)
            }
        }
    }

    /// Limits that are in force, in config.json, on record, and then for others to see.
    async fn keep_limits(
        &self,
        container: &Container,
        limits: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), Cause> {
        let old = self.drivers.bundles.read_config(&container.id)?;
        let mut config = old.clone();
        oci::set_limits(&mut config, &limits);
        self.drivers.bundles.write_config(&container.id, &config)?;
        let _recording = container.recording.lock().await;
        let mut record = container.record();
        record.resources = limits.clone();
        record.update_annotations = annotations.clone();
        let put = self.drivers.store.put(container.id.as_str(), &record, Durability::Process).await;
        if let Err(error) = put {
            self.drivers.bundles.write_config(&container.id, &old)?;
            return Err(error.into());
        }
        let _turn = self.events.turn();
        container.set_resources(limits, annotations);
        Ok(())
    }
}
