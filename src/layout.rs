//! Every path that Berth uses on disk, typed by id. No other file joins a literal to a path.
//! What does not live here: making, opening or removing what the paths name.

pub mod host;

use std::path::{Path, PathBuf};

use crate::ids::{ContainerId, Digest, PodId};

/// The two directories of one daemon. `root` survives a reboot, `state` need not (it is usually a tmpfs).
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    state: PathBuf,
}

impl Layout {
    /// Both must be absolute; the daemon checks that at start.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), state: state.into() }
    }

    /// What survives a reboot.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What need not survive a reboot.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Held locked by the one daemon of this state directory.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Held locked by the one daemon of this root directory.
    pub fn root_lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Records of images, layers, pods and containers.
    pub fn store(&self) -> PathBuf {
        self.root.join("berth.db")
    }

    /// Unpacked layers, by diff_id.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// One unpacked layer (or, for a layer keyed by chain ID, that ID): an overlay lowerdir.
    pub fn layer(&self, id: &Digest) -> PathBuf {
        self.layers().join(id.digits())
    }

    /// Directories that stay empty: overlay without a writable layer wants two layers at least. `name` tells them apart.
    pub fn empty(&self, name: &str) -> PathBuf {
        self.root.join("empty").join(name)
    }

    /// Manifests, indexes and configs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// One manifest, index or config.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.digits())
    }

    /// What has arrived of large blobs, slowly, as it was sent.
    pub fn spools(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// What has arrived of one blob.
    pub fn spool(&self, blob: &Digest) -> PathBuf {
        self.spools().join(blob.digits())
    }

    /// Where layers and blobs grow before they are renamed to their place; on the same file system as both.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// One growing layer or blob; `name` is unique and made by the layer cache.
    pub fn staged(&self, name: &str) -> PathBuf {
        self.staging().join(name)
    }

    /// The layer in a staged directory.
    pub fn staged_layer(&self, name: &str) -> PathBuf {
        self.staged(name).join("layer")
    }

    /// Overlay's work directory for a layer that is unpacked with its parents in view.
    pub fn staged_work(&self, name: &str) -> PathBuf {
        self.staged(name).join("work")
    }

    /// Damaged layers that running containers may still use.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// One damaged layer; `name` tells it from others of the same id.
    pub fn quarantined(&self, id: &Digest, name: &str) -> PathBuf {
        self.quarantine().join(format!("{}.{name}", id.digits()))
    }

    /// Something on its way out; `name` is unique.
    pub fn trashed(&self, name: &str) -> PathBuf {
        self.trash().join(name)
    }

    /// Removed layers and containers on their way out; emptied in the background.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// All pods' files.
    pub fn all_pod_files(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Files that each container of a pod mounts.
    pub fn pod_files(&self, pod: &PodId) -> PathBuf {
        self.all_pod_files().join(pod.as_str())
    }

    /// The pod's resolv.conf.
    pub fn pod_resolv_conf(&self, pod: &PodId) -> PathBuf {
        self.pod_files(pod).join("resolv.conf")
    }

    /// The pod's hosts file.
    pub fn pod_hosts(&self, pod: &PodId) -> PathBuf {
        self.pod_files(pod).join("hosts")
    }

    /// The pod's hostname file.
    pub fn pod_hostname(&self, pod: &PodId) -> PathBuf {
        self.pod_files(pod).join("hostname")
    }

    /// All writable layers.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// A container's private snapshot: its writable layer, overlay's work directories, and anonymous volumes.
    pub fn snapshot(&self, container: &ContainerId) -> PathBuf {
        self.snapshots().join(container.as_str())
    }

    /// The writable layer: overlay's upperdir.
    pub fn upper(&self, container: &ContainerId) -> PathBuf {
        self.snapshot(container).join("upper")
    }

    /// Overlay's workdir, a fresh one each mount (a volatile overlay refuses a used one).
    pub fn work(&self, container: &ContainerId) -> PathBuf {
        self.snapshot(container).join("work")
    }

    /// The volumes that a container's image declares.
    pub fn anonymous_volumes(&self, container: &ContainerId) -> PathBuf {
        self.snapshot(container).join("volumes")
    }

    /// One of them, by its number.
    pub fn anonymous_volume(&self, container: &ContainerId, number: usize) -> PathBuf {
        self.anonymous_volumes(container).join(number.to_string())
    }

    /// All pods that have, or had, a shim.
    pub fn shims(&self) -> PathBuf {
        self.state.join("pods")
    }

    /// One shim's own directory.
    pub fn shim(&self, pod: &PodId) -> PathBuf {
        self.shims().join(pod.as_str())
    }

    /// Where the shim listens.
    pub fn shim_socket(&self, pod: &PodId) -> PathBuf {
        self.shim(pod).join("shim.sock")
    }

    /// Where the pod's /dev/shm is attached, on kernels that need it somewhere.
    pub fn pod_shm(&self, pod: &PodId) -> PathBuf {
        self.shim(pod).join("shm")
    }

    /// The shim's stderr.
    pub fn shim_log(&self, pod: &PodId) -> PathBuf {
        self.shim(pod).join("shim.log")
    }

    /// All pinned network namespaces.
    pub fn network_namespaces(&self) -> PathBuf {
        self.state.join("netns")
    }

    /// One pod's pinned network namespace: a bind mount of it.
    pub fn network_namespace(&self, pod: &PodId) -> PathBuf {
        self.network_namespaces().join(pod.as_str())
    }

    /// Every directory that must exist before the daemon serves, each made with mode 0700.
    pub fn directories(&self) -> Vec<PathBuf> {
        vec![
            self.root.clone(),
            self.state.clone(),
            self.layers(),
            self.blobs(),
            self.staging(),
            self.spools(),
            self.trash(),
            self.all_pod_files(),
            self.snapshots(),
            self.shims(),
            self.network_namespaces(),
            self.bundles(),
        ]
    }

    /// All OCI bundles.
    pub fn bundles(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// A container's OCI bundle.
    pub fn bundle(&self, container: &ContainerId) -> PathBuf {
        self.bundles().join(container.as_str())
    }

    /// The OCI runtime spec (runtime-spec, bundle.md).
    pub fn oci_config(&self, container: &ContainerId) -> PathBuf {
        self.bundle(container).join("config.json")
    }

    /// How the container ended: see `berth_proto::shim::ExitRecord`.
    pub fn exit_record(&self, container: &ContainerId) -> PathBuf {
        self.bundle(container).join("exit")
    }
}

/// The default configuration file.
pub const CONFIG: &str = "/etc/berth/config.toml";
/// The default root directory.
pub const ROOT: &str = "/var/lib/berth";
/// The default state directory.
pub const STATE: &str = "/run/berth";
/// The default daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/berth/berth.sock";
/// The socket's name inside the state directory.
pub const SOCKET: &str = "berth.sock";
