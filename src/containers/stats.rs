//! ContainerStats and its lists: what running containers use. What does not live here: CRI's names for it, and pods.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::gauges::{Gauges, WritableLayer};
use super::list::PhaseName;
use super::state::Phase;
use super::{Cause, Container, ContainerError, Containers, Filter};
use crate::clock;
use crate::drivers::cgroup::stats::{Detail, Usage};
use crate::drivers::disk_usage::{self, DiskUsage};
use crate::drivers::processes::{self, Processes};
use crate::spread::spread;

/// What one container uses.
pub struct ContainerStats {
    /// Whose it is.
    pub container: Arc<Container>,
    /// None: it does not run.
    pub usage: Option<Usage>,
    /// Processor time: nanoseconds a second. None until there is a span of time to take it from.
    pub nano_cores: Option<u64>,
    /// As it was at the last look; None until the first, after a restart of the daemon.
    pub writable_layer: Option<WritableLayer>,
    /// Its processes; only with [`Detail::Metrics`].
    pub processes: Option<Processes>,
}

impl Containers {
    /// Of one container. One that does not run has a writable layer, and nothing else.
    pub async fn stats(self: &Arc<Self>, id: &str) -> Result<ContainerStats, ContainerError> {
        let container = self.find(id)?;
        let (this, read) = (self.clone(), container.clone());
        let found = spread(vec![read], move |container| this.measure(container, Detail::Stats)).await;
        let gone = || Cause::CgroupGone(container.cgroup.path().to_string()).of(&container.id);
        found.into_iter().flatten().next().ok_or_else(gone)
    }

    /// Of those that run and that the filter admits, oldest first. One that goes meanwhile is left out.
    pub async fn list_stats(self: &Arc<Self>, filter: Filter) -> Vec<ContainerStats> {
        let running = self.list(&Filter { phase: Some(PhaseName::Running), ..filter });
        let this = self.clone();
        spread(running, move |container| this.measure(container, Detail::Stats))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Of one container, now. None where it runs and its control group is gone. Blocking.
    pub fn measure(&self, container: Arc<Container>, detail: Detail) -> Option<ContainerStats> {
        let mut stats = ContainerStats {
            usage: None,
            nano_cores: None,
            writable_layer: self.writable_layer(&container),
            processes: None,
            container,
        };
        let Phase::Running(run) = stats.container.phase() else { return Some(stats) };
        let cgroup = &stats.container.cgroup;
        let mut usage = self.drivers.cgroups.usage(cgroup, detail)?;
        stats.nano_cores = stats.container.gauges.observe(&mut usage, since(run.started_at));
        if detail == Detail::Metrics {
            stats.processes = Some(processes::look(&self.drivers.cgroups.processes(cgroup)));
        }
        stats.usage = Some(usage);
        Some(stats)
    }

    /// Of all writable layers together, as far as it is known.
    pub fn writable_usage(&self) -> DiskUsage {
        let known = self.list(&Filter::default()).into_iter().filter_map(|one| self.writable_layer(&one));
        known.fold(DiskUsage::default(), |sum, layer| DiskUsage {
            bytes: sum.bytes + layer.usage.bytes,
            inodes: sum.inodes + layer.usage.inodes,
        })
    }

    /// What is known of a container's writable layer. Where that is too old, a look is ordered, for the next time.
    fn writable_layer(&self, container: &Container) -> Option<WritableLayer> {
        if let Some(usage) = self.drivers.bundles.usage(&container.id) {
            return Some(WritableLayer { at: clock::now(), usage });
        }
        let mut disk = container.gauges.disk();
        if disk.begin(Instant::now()) {
            let (path, gauges) =
                (self.drivers.layout.snapshot(&container.id), Arc::downgrade(&container.gauges));
            self.drivers.background.push(move || look(&path, &gauges));
        }
        disk.known
    }

    /// A new container's layer is all but empty, so that it can be looked at right away.
    pub(super) fn note_new_layer(&self, container: &Container) {
        container.gauges.disk().known = measured(&self.drivers.layout.snapshot(&container.id), || true);
    }
}

/// How long ago that was, by the wall clock: nanoseconds since the epoch.
pub fn since(moment: i64) -> Duration {
    Duration::from_nanos(u64::try_from(clock::now().saturating_sub(moment)).unwrap_or(0))
}

/// Ends early when the container is gone, which owns the gauges.
fn look(snapshot: &std::path::Path, gauges: &Weak<Gauges>) {
    let start = Instant::now();
    let found = measured(snapshot, || gauges.strong_count() > 0);
    if let Some(gauges) = gauges.upgrade() {
        gauges.disk().done(found, Instant::now(), start.elapsed());
    }
}

fn measured(snapshot: &std::path::Path, go_on: impl Fn() -> bool) -> Option<WritableLayer> {
    let at = clock::now();
    match disk_usage::measure(snapshot, go_on) {
        Ok(usage) => usage.map(|usage| WritableLayer { at, usage }),
        Err(error) => {
            tracing::debug!(path = %snapshot.display(), %error, "cannot look at a writable layer");
            None
        }
    }
}
