//! Pod sandboxes: what was asked for (`spec`), what they are (`pod`), and one verb a file. No system calls, no CRI types.

mod error;
mod handlers;
mod list;
mod pod;
mod port_forward;
mod recover;
mod remove;
mod run;
pub mod spec;
mod stats;
mod stop;
mod update;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::{Cause, PodError};
pub use handlers::Config;
pub use list::Filter;
pub use pod::{Pod, PodRecord};
pub use stats::{Metrics, NetworkStats, PodStats};
pub use watch::{PodSnapshot, Sight, Watch, WatchEnd};

use crate::calls::Calls;
use crate::containers::Containers;
use crate::drivers::Drivers;
use crate::drivers::network::PodNetwork;
use crate::ids::PodId;
use spec::{PodMetadata, PodSpec};

/// All pod sandboxes of this daemon.
pub struct Pods {
    config: Config,
    drivers: Arc<Drivers>,
    containers: Arc<Containers>,
    by_id: Mutex<HashMap<PodId, Arc<Pod>>>,
    starting: Calls<PodMetadata, Result<PodId, PodError>>,
    watched: Mutex<watch::Watched>,
}

impl Pods {
    /// None yet: see `recover` for those of a daemon before this one.
    pub fn new(config: Config, drivers: Arc<Drivers>, containers: Arc<Containers>) -> Self {
        Self {
            config,
            drivers,
            containers,
            by_id: Mutex::default(),
            starting: Calls::default(),
            watched: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<PodId, Arc<Pod>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the network needs to know of a pod.
    fn network_of(&self, id: &PodId, spec: &PodSpec) -> PodNetwork {
        PodNetwork {
            id: id.clone(),
            name: spec.metadata.name.clone(),
            namespace: spec.metadata.namespace.clone(),
            uid: spec.metadata.uid.clone(),
            netns: self.drivers.layout.network_namespace(id),
            ports: spec.ports.clone(),
            dns: spec.dns.clone(),
            annotations: spec.annotations.clone(),
            cgroup_parent: spec.cgroup_parent.clone(),
        }
    }
}
