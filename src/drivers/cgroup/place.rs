//! Where a pod and a container are in the hierarchies: what records keep. What does not live here: the making.

use serde::{Deserialize, Serialize};

/// A pod's cgroup: the shim's own cgroup and the containers' are its children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCgroup {
    pub(super) path: String,
    pub(super) v2: bool,
    pub(super) shim: Vec<String>,
    /// The systemd unit that it is.
    pub(super) scope: Option<String>,
    /// Directories above it that did not exist before, outermost first; they go with the pod where nobody else uses them.
    pub(super) made: Vec<String>,
}

impl PodCgroup {
    /// Path from the root of the hierarchy, `/kubepods/.../berth-<pod id>`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is a version 2 cgroup.
    pub fn v2(&self) -> bool {
        self.v2
    }

    /// Directories of the shim's own cgroup. Version 1: one for each hierarchy, the shim writes `0` to each one's `tasks`.
    /// Version 2: one, to spawn into by CLONE_INTO_CGROUP or to join by writing `0` to its `cgroup.procs`.
    pub fn join_dirs(&self) -> Vec<String> {
        self.shim.clone()
    }
}

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerCgroup {
    pub(super) path: String,
    pub(super) v2: bool,
    pub(super) dirs: Vec<String>,
}

impl ContainerCgroup {
    /// Path from the root of the hierarchy, `/kubepods/.../berth-<pod id>/<container id>`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is a version 2 cgroup.
    pub fn v2(&self) -> bool {
        self.v2
    }

    /// Directories that the child joins. Version 1: one for each hierarchy, by writing `0` to `tasks`: a write to
    /// `cgroup.procs` waits 5-7 ms for an RCU grace period. Version 2: one, by CLONE_INTO_CGROUP.
    pub fn join_dirs(&self) -> Vec<String> {
        self.dirs.clone()
    }
}

/// A cgroup of either kind.
pub trait Place {
    /// Path from the root of the hierarchy.
    fn place(&self) -> &str;
}

impl Place for PodCgroup {
    fn place(&self) -> &str {
        &self.path
    }
}

impl Place for ContainerCgroup {
    fn place(&self) -> &str {
        &self.path
    }
}
