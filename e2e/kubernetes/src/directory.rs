//! The directory of one cluster: every path in it. The test programs find it by `BERTH_E2E_CLUSTER`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The environment variable that names it.
pub const VARIABLE: &str = "BERTH_E2E_CLUSTER";

/// All files of a cluster.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// A cluster's directory, which exists.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// That of the cluster in which this program runs.
    pub fn from_env() -> Result<Self> {
        let path = std::env::var_os(VARIABLE).with_context(|| {
            format!("{VARIABLE} is not set: scenarios need a cluster (make e2e-kubernetes)")
        })?;
        Ok(Self(path.into()))
    }

    /// Makes the directories in it.
    pub fn make(&self) -> Result<()> {
        for path in [self.pki(), self.logs(), self.0.join("pids"), self.0.join("held")] {
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mount point of the node's own file system, in its mount namespace. Short, for sockets are below it.
    pub fn disk(&self) -> PathBuf {
        PathBuf::from("/mnt")
    }

    /// What the node has at `/NAME` instead of the machine's own.
    pub fn host(&self, name: &str) -> PathBuf {
        self.disk().join("host").join(name)
    }

    /// What is mounted there.
    pub fn disk_image(&self) -> PathBuf {
        self.0.join("disk.img")
    }

    /// etcd's data.
    pub fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// A certificate, PEM.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.pki().join(format!("{name}.pem"))
    }

    /// Its key, PEM.
    pub fn key(&self, name: &str) -> PathBuf {
        self.pki().join(format!("{name}.key"))
    }

    /// How a user of the API reaches it.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.0.join(format!("{user}.kubeconfig"))
    }

    /// What the daemons print.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// What one prints.
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.logs().join(format!("{daemon}.log"))
    }

    /// The process id of a daemon that runs.
    pub fn pid(&self, daemon: &str) -> PathBuf {
        self.0.join("pids").join(daemon)
    }

    /// While this exists a daemon that has ended is not started again.
    pub fn held(&self, daemon: &str) -> PathBuf {
        self.0.join("held").join(daemon)
    }

    /// The runtime's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("cri.sock")
    }

    /// `HOST:PORT` of the registry.
    pub fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }

    /// The name of the cgroup above all pods.
    pub fn cgroup(&self) -> PathBuf {
        self.0.join("cgroup")
    }

    /// Held shared by scenarios, and alone by disturbances.
    pub fn turn(&self) -> PathBuf {
        self.0.join("turn")
    }

    /// The kubelet's configuration.
    pub fn kubelet_config(&self) -> PathBuf {
        self.0.join("kubelet.json")
    }

    /// The command line by which the kubelet is started next; no word of it has a space.
    pub fn kubelet_command(&self) -> PathBuf {
        self.0.join("kubelet-command")
    }

    /// Pods that the kubelet runs whatever the API says.
    pub fn static_pods(&self) -> PathBuf {
        self.disk().join("static-pods")
    }

    /// The kubelet's `--root-dir`.
    pub fn kubelet_root(&self) -> PathBuf {
        self.disk().join("kubelet")
    }

    /// What pods see as the node's /var/log.
    pub fn var_log(&self) -> PathBuf {
        self.disk().join("log")
    }

    /// The pods' resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }
}
