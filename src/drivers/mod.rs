//! One effect each, no policy: how a thing is done on Linux, on disk or on the wire.

pub mod apparmor;
pub mod background;
pub mod block;
pub mod bundle;
pub mod cgroup;
pub mod descriptors;
pub mod digests;
pub mod disk_usage;
pub mod host;
pub mod id_map;
pub mod layers;
pub mod network;
pub mod pod_files;
pub mod processes;
pub mod quota;
pub mod registry;
pub mod rootfs;
pub mod seccomp;
pub mod selinux;
pub mod shim;
pub mod signatures;
pub mod stdio;
pub mod store;
pub mod systemd;
pub mod trash;
pub mod watched;

use std::sync::Arc;

use crate::layout::Layout;

/// Everything that pods and containers act through.
pub struct Drivers {
    /// Paths.
    pub layout: Layout,
    /// Records.
    pub store: Arc<store::Store>,
    /// Processes.
    pub shims: shim::Shims,
    /// Limits.
    pub cgroups: cgroup::Cgroups,
    /// Connections.
    pub network: std::sync::Arc<network::Network>,
    /// Root file systems.
    pub layers: layers::Layers,
    /// Directories of containers.
    pub bundles: bundle::Bundles,
    /// Files and pins of pods.
    pub pod_files: pod_files::PodFiles,
    /// Work that may wait.
    pub background: background::Background,
    /// System call filters.
    pub seccomp: seccomp::SeccompCache,
    /// Profiles.
    pub apparmor: apparmor::Apparmor,
    /// The node.
    pub host: host::Host,
}
