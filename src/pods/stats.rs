//! PodSandboxStats, its lists, and the metrics of all pods. What does not live here: CRI's names for it.

use std::sync::Arc;

use super::{Cause, Filter, Pod, PodError, Pods};
use crate::clock;
use crate::containers::{Container, ContainerStats, since};
use crate::drivers::cgroup::stats::{Detail, Usage};
use crate::drivers::disk_usage::{self, FileSystem};
use crate::drivers::network::{self, InterfaceUsage};
use crate::spread::spread;

/// What one pod uses, and its containers.
pub struct PodStats {
    /// Whose it is.
    pub pod: Arc<Pod>,
    /// All of its containers together, and its shim; None: it is not ready. The memory limit is the pod's, too where the
    /// kubelet has set it.
    pub usage: Option<Usage>,
    /// Processor time: nanoseconds a second. None until there is a span of time to take it from.
    pub nano_cores: Option<u64>,
    /// None: it has no network of its own.
    pub network: Option<NetworkStats>,
    /// Of those that run, oldest first.
    pub containers: Vec<ContainerStats>,
}

/// What went through a pod's interfaces.
pub struct NetworkStats {
    /// When it was read: nanoseconds since the epoch.
    pub at: i64,
    /// The one that leads to the other pods and to the world comes first; loopback does not count.
    pub interfaces: Vec<InterfaceUsage>,
}

/// For the metrics of the node's pods.
pub struct Metrics {
    /// Of those that are ready.
    pub pods: Vec<PodStats>,
    /// Where writable layers are; None where it can't be told.
    pub file_system: Option<FileSystem>,
}

impl Pods {
    /// Of one pod sandbox. One that is not ready uses nothing.
    pub async fn stats(self: &Arc<Self>, id: &str) -> Result<PodStats, PodError> {
        let pod = self.find(id)?;
        let gone = || Cause::CgroupGone(pod.sandbox.cgroup.path().to_string()).of(pod.id());
        self.measure_all(vec![pod.clone()], Detail::Stats).await.pop().ok_or_else(gone)
    }

    /// Of those that are ready and that the filter admits, oldest first. One that goes meanwhile is left out.
    pub async fn list_stats(self: &Arc<Self>, filter: Filter) -> Vec<PodStats> {
        let ready = self.list(&Filter { ready: Some(true), ..filter });
        self.measure_all(ready, Detail::Stats).await
    }

    /// What the metrics of all ready pods are made of.
    pub async fn metrics(self: &Arc<Self>) -> Metrics {
        let ready = self.list(&Filter { ready: Some(true), ..Filter::default() });
        let pods = self.measure_all(ready, Detail::Metrics).await;
        let root = self.drivers.layout.root().to_path_buf();
        let looked = spread(vec![root], |root| disk_usage::file_system(&root).ok()).await;
        Metrics { pods, file_system: looked.into_iter().flatten().next() }
    }

    async fn measure_all(self: &Arc<Self>, pods: Vec<Arc<Pod>>, detail: Detail) -> Vec<PodStats> {
        let mut running = self.containers.running_by_pod();
        let items = pods.into_iter().map(|pod| (running.remove(pod.id()).unwrap_or_default(), pod)).collect();
        let this = self.clone();
        let measured = spread(items, move |(containers, pod)| this.measure(pod, containers, detail)).await;
        measured.into_iter().flatten().collect()
    }

    /// Of one pod, now. None where it is ready and its control group is gone. Blocking.
    fn measure(&self, pod: Arc<Pod>, containers: Vec<Arc<Container>>, detail: Detail) -> Option<PodStats> {
        let mut stats =
            PodStats { usage: None, nano_cores: None, network: None, containers: Vec::new(), pod };
        let sandbox = &stats.pod.sandbox;
        let Some(shim) = sandbox.shim() else { return Some(stats) };
        // The containers first: then the pod's own counters have seen what theirs have, and perhaps more.
        stats.containers =
            containers.into_iter().filter_map(|c| self.containers.measure(c, detail)).collect();
        let mut usage = self.drivers.cgroups.usage(&sandbox.cgroup, detail)?;
        stats.nano_cores = sandbox.gauges.observe(&mut usage, since(stats.pod.created_at));
        if let Some(memory) = &mut usage.memory {
            let above = self.drivers.cgroups.memory_limit_above(&sandbox.cgroup);
            memory.limit = memory.limit.into_iter().chain(above).min();
        }
        stats.usage = Some(usage);
        if !sandbox.spec.namespaces.host_network {
            stats.network = network_of(&stats.pod, shim.pid());
        }
        Some(stats)
    }
}

/// The shim lives in the pod's network namespace.
fn network_of(pod: &Pod, shim: i32) -> Option<NetworkStats> {
    let mut interfaces = network::usage(shim)?;
    let attachment = pod.network();
    let made = attachment.iter().flat_map(|network| &network.interfaces).find(|made| made.sandbox);
    let main = made.map_or("eth0", |made| made.name.as_str());
    if let Some(index) = interfaces.iter().position(|interface| interface.name == main) {
        interfaces[..=index].rotate_right(1);
    }
    Some(NetworkStats { at: clock::now(), interfaces })
}
