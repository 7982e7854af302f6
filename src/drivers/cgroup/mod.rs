//! Control groups of pods and containers, v2 and v1, by cgroupfs or by systemd.
//!
//! What lives here: the driver and its verbs, one file each. What does not: which limits a container gets (containers/), and
//! who joins a cgroup (the shim's child does, through the directories that `join_dirs` names).
//!
//! The crate cgroups-rs tells versions and mounts, drives the freezers, reads device lists and knows systemd's properties.
//! Limits are written here: they must be all in force or none, and an error must name file, value and errno.

mod create;
mod devices;
mod error;
mod events;
mod hierarchy;
mod kill;
mod limits;
mod parent;
mod place;
mod remove;
mod setting;
pub mod stats;
mod systemd;
#[cfg(test)]
mod tests;
mod update;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::containers::spec::Resources;
use crate::ids::{ContainerId, PodId};
use crate::telemetry;

pub use devices::{DeviceKind, DeviceRule, DeviceRules};
pub use error::CgroupError;
pub use hierarchy::Mode;
pub use place::{ContainerCgroup, Place, PodCgroup};
pub use setting::Undo;

use hierarchy::{Hierarchies, below};

/// `[cgroup]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `auto`, `cgroupfs` or `systemd`.
    pub driver: Driver,
    /// Where pods go that name no cgroup parent. Empty: `/berth`, or `berth.slice` with the systemd driver.
    #[serde(deserialize_with = "parent::deserialize")]
    pub parent: String,
    /// On cgroup v2: when a container runs out of memory, kill all of it instead of its biggest process. The kubelet says
    /// this for each container itself since Kubernetes 1.28; what it says wins.
    pub oom_group: bool,
}

/// Who makes a pod's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// systemd where it runs the host and cgroups are v2, else cgroupfs.
    #[default]
    Auto,
    /// Berth itself, in the file system.
    Cgroupfs,
    /// systemd: each pod is one transient scope, and Berth makes what is below it.
    Systemd,
}

/// The driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cgroups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hierarchies: Hierarchies,
    driver: Driver,
    parent: String,
    oom_group: bool,
    filters: devices::Filters,
}

impl Cgroups {
    /// Looks at the host's hierarchies and decides the driver.
    pub fn open(config: &Config) -> Result<Self, CgroupError> {
        let hierarchies = Hierarchies::detect()?;
        let driver = match config.driver {
            Driver::Auto if hierarchies.mode() == Mode::V2 && systemd::runs_host() => Driver::Systemd,
            Driver::Auto => Driver::Cgroupfs,
            Driver::Systemd if !systemd::runs_host() => return Err(CgroupError::NoSystemd),
            driver => driver,
        };
        Self::with(hierarchies, driver, config)
    }

    fn with(hierarchies: Hierarchies, driver: Driver, config: &Config) -> Result<Self, CgroupError> {
        let parent = match (config.parent.as_str(), driver) {
            ("", Driver::Systemd) => "berth.slice",
            ("", _) => "/berth",
            (parent, _) => parent,
        };
        parent::path(driver, parent)?;
        let (parent, oom_group) = (parent.to_string(), config.oom_group);
        Ok(Self {
            inner: Arc::new(Inner {
                hierarchies,
                driver,
                parent,
                oom_group,
                filters: devices::Filters::default(),
            }),
        })
    }

    /// Version of the interface.
    pub fn mode(&self) -> Mode {
        self.inner.hierarchies.mode()
    }

    /// The driver in effect, never `Auto`; the kubelet must use the same (CRI RuntimeConfig tells it).
    pub fn driver(&self) -> Driver {
        self.inner.driver
    }

    /// Makes a pod's cgroup below `parent` (empty: the configured one), and the shim's own in it. `shim` is the shim's pid:
    /// systemd needs a first process for a scope, and then the shim is in its cgroup already; cgroupfs takes no notice
    /// of it. Making it again is fine.
    pub async fn create_pod(
        &self,
        parent: &str,
        pod: &PodId,
        shim: Option<i32>,
    ) -> Result<PodCgroup, CgroupError> {
        let parent = if parent.is_empty() { &self.inner.parent } else { parent };
        let above = parent::path(self.inner.driver, parent)?;
        let shared = parent == self.inner.parent;
        match self.inner.driver {
            Driver::Systemd => {
                let unit = format!("berth-{pod}.scope");
                let pid = shim.ok_or_else(|| CgroupError::NoProcess { unit: unit.clone() })?;
                systemd::start_scope(&unit, parent::slice_name(parent), pid).await?;
                let made =
                    self.make_pod(format!("{above}/{unit}"), Some(unit.clone()), Some(pid), shared).await;
                if made.is_err() {
                    // The scope has the shim in it, which goes with it: the pod can't be made.
                    systemd::stop_scope(&unit).await?;
                }
                made
            }
            Driver::Auto | Driver::Cgroupfs => self.make_pod(own_path(&above, pod), None, None, shared).await,
        }
    }

    /// Whether a pod has a cgroup of Berth's own making; a scope of systemd's vanishes by itself.
    pub fn has_pod(&self, parent: &str, pod: &PodId) -> Result<bool, CgroupError> {
        let parent = if parent.is_empty() { &self.inner.parent } else { parent };
        let above = parent::path(self.inner.driver, parent)?;
        let dirs = self.inner.hierarchies.dirs(&own_path(&above, pod));
        Ok(self.inner.driver != Driver::Systemd && dirs.iter().any(|dir| dir.exists()))
    }

    async fn make_pod(
        &self,
        path: String,
        scope: Option<String>,
        joins: Option<i32>,
        shared: bool,
    ) -> Result<PodCgroup, CgroupError> {
        self.blocking(move |inner| {
            let v2 = inner.hierarchies.mode() == Mode::V2;
            // Version 2 allows no processes beside child cgroups that have controllers.
            let shim = if v2 { format!("{path}/shim") } else { path.clone() };
            let own: Vec<PathBuf> =
                inner.hierarchies.dirs(&path).into_iter().chain(inner.hierarchies.dirs(&shim)).collect();
            let made = match (joins, &inner.hierarchies) {
                (Some(pid), Hierarchies::V2(root)) => adopt(&below(root, &shim), pid)?,
                _ => create::make(&inner.hierarchies, &shim)?,
            };
            let above = made.iter().filter(|dir| !shared && scope.is_none() && !own.contains(dir));
            let made = above.map(text).collect();
            Ok(PodCgroup {
                shim: inner.hierarchies.dirs(&shim).iter().map(text).collect(),
                path,
                v2,
                scope,
                made,
            })
        })
        .await
    }

    /// Makes a container's cgroup in its pod's: directories, limits, allowed devices; all of it or nothing.
    pub async fn create_container(
        &self,
        pod: &PodCgroup,
        id: &ContainerId,
        resources: &Resources,
        devices: &DeviceRules,
    ) -> Result<ContainerCgroup, CgroupError> {
        let path = format!("{}/{id}", pod.path);
        let (resources, devices) = (resources.clone(), devices.clone());
        self.blocking(move |inner| {
            let limits = (&resources, &devices);
            create::container(&inner.hierarchies, &inner.filters, &path, limits, inner.oom_group)?;
            let dirs = inner.hierarchies.dirs(&path).iter().map(text).collect();
            Ok(ContainerCgroup { path, v2: inner.hierarchies.mode() == Mode::V2, dirs })
        })
        .await
    }

    /// Changes limits; those that are not named stay. On failure the old ones are in force; later `revert` brings
    /// them back.
    pub async fn update(
        &self,
        container: &ContainerCgroup,
        resources: &Resources,
    ) -> Result<Undo, CgroupError> {
        let (path, resources) = (container.path.clone(), resources.clone());
        self.blocking(move |inner| update::container(&inner.hierarchies, &path, &resources)).await
    }

    /// Takes an `update` back.
    pub async fn revert(&self, undo: Undo) -> Result<(), CgroupError> {
        let revert = move |_: &Inner| {
            undo.revert();
            Ok(())
        };
        self.blocking(revert).await
    }

    /// How many processes of the container the kernel has killed for memory. NotFound where the cgroup is gone.
    pub fn oom_kills(&self, container: &ContainerCgroup) -> io::Result<u64> {
        events::oom_kills(&self.inner.hierarchies, &container.path)
    }

    /// Checks that a process runs in the container's cgroup (or below it) in every hierarchy.
    pub fn verify(&self, container: &ContainerCgroup, pid: i32) -> Result<(), CgroupError> {
        events::verify(&self.inner.hierarchies, &container.path, pid)
    }

    /// Every process of a pod's or container's cgroup and below it.
    pub fn processes(&self, place: &impl Place) -> Vec<i32> {
        kill::processes(&self.inner.hierarchies, place.place())
    }

    /// Sends SIGKILL to all of them (a pod's shim too); none escapes by forking. Does not wait for their end.
    pub async fn kill(&self, place: &impl Place) -> Result<(), CgroupError> {
        let path = place.place().to_string();
        self.blocking(move |inner| kill::kill(&inner.hierarchies, &path)).await
    }

    /// Waits until a cgroup has no process; past `time` the error names each pid and where it waits in the kernel.
    pub async fn wait_empty(&self, place: &impl Place, time: Duration) -> Result<(), CgroupError> {
        let path = place.place().to_string();
        self.blocking(move |inner| kill::wait_empty(&inner.hierarchies, &path, time)).await
    }

    /// Removes a container's cgroup and those its processes made. Absent is fine; a busy one is retried for two seconds.
    pub async fn remove_container(&self, container: &ContainerCgroup) -> Result<(), CgroupError> {
        let path = container.path.clone();
        self.blocking(move |inner| remove::remove(&inner.hierarchies, &path)).await
    }

    /// Removes a pod's cgroup with all that is below it, and parents that were made for it. The shim must have ended.
    pub async fn remove_pod(&self, pod: &PodCgroup) -> Result<(), CgroupError> {
        if let Some(unit) = &pod.scope {
            let path = pod.path.clone();
            self.blocking(move |inner| remove::await_empty(&inner.hierarchies, &path)).await?;
            systemd::stop_scope(unit).await?;
        }
        let (path, made) = (pod.path.clone(), pod.made.clone());
        self.blocking(move |inner| {
            remove::remove(&inner.hierarchies, &path)?;
            remove::unused(&made);
            Ok(())
        })
        .await
    }

    /// The file system work of one verb, off the async threads; it goes on when the caller is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, CgroupError> + Send + 'static,
    ) -> Result<T, CgroupError> {
        let inner = Arc::clone(&self.inner);
        telemetry::blocking(move || work(&inner)).await.map_err(CgroupError::Interrupted)?
    }
}

/// The cgroup of a pod that systemd knows nothing of.
fn own_path(above: &str, pod: &PodId) -> String {
    format!("{above}/berth-{pod}")
}

/// Moves the shim out of the scope itself, where systemd put it, into a cgroup of its own.
fn adopt(dir: &Path, pid: i32) -> Result<Vec<PathBuf>, CgroupError> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(CgroupError::Create { path: dir.into(), source: error });
        }
        _ => {}
    }
    let (path, value) = (dir.join("cgroup.procs"), pid.to_string());
    match setting::write(&path, &value) {
        Ok(()) => Ok(Vec::new()),
        Err(source) => Err(CgroupError::Write { resource: "the shim's cgroup", path, value, source }),
    }
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
