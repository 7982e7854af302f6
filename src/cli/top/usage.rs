//! What each ready pod uses, as CRI's lists tell it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use berth_proto::cri::v1::{
    Container, ListContainersRequest, ListPodSandboxRequest, ListPodSandboxStatsRequest, PodSandbox,
    PodSandboxFilter, PodSandboxState, PodSandboxStateValue, PodSandboxStats, UInt64Value,
};

use crate::cli::client::{Client, said};
use crate::clock;

/// One ready pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodUsage {
    pub namespace: String,
    pub name: String,
    /// Nanoseconds of processor time a second; None: not known yet.
    pub nano_cores: Option<u64>,
    /// The working set in bytes.
    pub memory: u64,
    /// Of its containers' writable layers, in bytes.
    pub disk: u64,
    /// Of all its containers together.
    pub restarts: u64,
    /// Those that run.
    pub containers: usize,
    pub age: Duration,
}

/// All ready pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub pods: Vec<PodUsage>,
}

impl Usage {
    /// As it is now.
    pub async fn fetch(client: &mut Client) -> anyhow::Result<Self> {
        let ready = PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() };
        let filter = Some(PodSandboxFilter { state: Some(ready), ..Default::default() });
        let pods = client.runtime.list_pod_sandbox(ListPodSandboxRequest { filter }).await.map_err(said)?;
        let containers =
            client.runtime.list_containers(ListContainersRequest::default()).await.map_err(said)?;
        let stats = client.runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await;
        let stats = stats.map_err(said)?.into_inner().stats;
        Ok(Self::of(&pods.into_inner().items, &containers.into_inner().containers, stats))
    }

    fn of(pods: &[PodSandbox], containers: &[Container], stats: Vec<PodSandboxStats>) -> Self {
        let id = |stats: &PodSandboxStats| stats.attributes.clone().unwrap_or_default().id;
        let stats: HashMap<_, _> = stats.into_iter().map(|stats| (id(&stats), stats)).collect();
        let restarts = restarts(containers);
        let now = clock::now();
        let pod = |pod: &PodSandbox| {
            let metadata = pod.metadata.clone().unwrap_or_default();
            let age = u64::try_from(now - pod.created_at).unwrap_or(0);
            let known = PodUsage {
                namespace: metadata.namespace,
                name: metadata.name,
                restarts: restarts.get(pod.id.as_str()).copied().unwrap_or(0),
                age: Duration::from_nanos(age),
                ..PodUsage::default()
            };
            match stats.get(&pod.id) {
                Some(stats) => with_stats(known, stats),
                None => known,
            }
        };
        Self { pods: pods.iter().map(pod).collect() }
    }
}

fn value(value: Option<UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

fn with_stats(known: PodUsage, stats: &PodSandboxStats) -> PodUsage {
    let linux = stats.linux.clone().unwrap_or_default();
    let layers = linux.containers.iter().filter_map(|container| container.writable_layer.as_ref());
    PodUsage {
        nano_cores: value(linux.cpu.and_then(|cpu| cpu.usage_nano_cores)),
        memory: value(linux.memory.and_then(|memory| memory.working_set_bytes)).unwrap_or(0),
        disk: layers.filter_map(|layer| value(layer.used_bytes)).sum(),
        containers: linux.containers.len(),
        ..known
    }
}

/// By pod. The kubelet counts a container's restarts in its attempt, of which the latest is the highest.
fn restarts(containers: &[Container]) -> BTreeMap<&str, u64> {
    let mut attempts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for container in containers {
        let Some(metadata) = &container.metadata else { continue };
        let attempt = attempts.entry((&container.pod_sandbox_id, &metadata.name)).or_default();
        *attempt = (*attempt).max(metadata.attempt);
    }
    let mut pods = BTreeMap::new();
    for ((pod, _), attempt) in attempts {
        *pods.entry(pod).or_default() += u64::from(attempt);
    }
    pods
}

#[cfg(test)]
mod tests {
    use berth_proto::cri::v1::{ContainerMetadata, PodSandboxMetadata};

    use super::*;

    #[test]
    fn restarts_are_those_of_all_containers_of_a_pod() {
        let container = |pod: &str, name: &str, attempt| Container {
            pod_sandbox_id: pod.into(),
            metadata: Some(ContainerMetadata { name: name.into(), attempt }),
            ..Default::default()
        };
        let containers =
            [container("1", "a", 2), container("1", "a", 3), container("1", "b", 1), container("2", "a", 0)];
        let metadata = PodSandboxMetadata { name: "web".into(), namespace: "x".into(), ..Default::default() };
        let pod = PodSandbox { id: "1".into(), metadata: Some(metadata), ..Default::default() };
        let usage = Usage::of(&[pod], &containers, Vec::new());
        assert_eq!((usage.pods[0].restarts, usage.pods[0].nano_cores), (4, None));
    }
}
