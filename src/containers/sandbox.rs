//! What a container needs of its pod. What does not live here: the pod's own life (pods/).

use std::sync::{Mutex, PoisonError};

use super::gauges::Gauges;
use crate::drivers::cgroup::PodCgroup;
use crate::drivers::shim::Shim;
use crate::ids::PodId;
use crate::pods::spec::PodSpec;

/// A pod sandbox as its containers see it.
pub struct Sandbox {
    /// Its id.
    pub id: PodId,
    /// What was asked for.
    pub spec: PodSpec,
    /// Parent of the containers' cgroups.
    pub cgroup: PodCgroup,
    /// What is remembered between two answers about usage.
    pub gauges: Gauges,
    /// Set while the sandbox is ready.
    shim: Mutex<Option<Shim>>,
}

impl Sandbox {
    /// With a shim it is ready.
    pub fn new(id: PodId, spec: PodSpec, cgroup: PodCgroup, shim: Option<Shim>) -> Self {
        Self { id, spec, cgroup, gauges: Gauges::default(), shim: Mutex::new(shim) }
    }

    /// The pod's `namespace/name`.
    pub fn name(&self) -> String {
        self.spec.metadata.to_string()
    }

    /// The shim of a ready sandbox.
    pub fn shim(&self) -> Option<Shim> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another connection in place, or with None makes the sandbox not ready. Returns what was there.
    pub fn set_shim(&self, shim: Option<Shim>) -> Option<Shim> {
        std::mem::replace(&mut *self.shim.lock().unwrap_or_else(PoisonError::into_inner), shim)
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("id", &self.id).finish_non_exhaustive()
    }
}
