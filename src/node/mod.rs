//! Berth on a host, from a pod of the chart: installed, the kubelet switched to it and back, and removed so that the host is as
//! it was. What does not live here: the command line (cli/node), and how systemd is spoken to (drivers/systemd).
//!
//! Whatever is replaced is on record before it is (receipt), so a step that was cut short is done again or undone.

mod cluster;
mod install;
mod kubelet;
mod place;
mod program;
mod ready;
mod receipt;
mod release;
mod runtime;
mod status;
mod switch;
mod uninstall;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::cluster::Credentials;
pub use self::install::{Outcome, install};
pub use self::program::Programs;
pub use self::release::{VARIABLE as UNINSTALL, restore_all};
pub use self::status::{Status, status};
pub use self::switch::{Step, switch, wait_for_switch};
pub use self::uninstall::{begin_uninstall, uninstall};

use crate::config::Config;
use crate::drivers::systemd::{Systemd, SystemdError};
use crate::layout::host::HostLayout;

/// Between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What Berth is for on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The kubelet's runtime.
    Kubelet,
    /// It runs beside the kubelet's runtime; nothing of the kubelet is touched.
    Sidecar,
}

/// What the operator wants of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What Berth is for.
    pub mode: Mode,
    /// The daemon's configuration.
    pub config: String,
    /// hosts.toml of registries, by registry.
    pub registries: BTreeMap<String, String>,
    /// Keys and trusted roots for the policy on images, by file name.
    pub trust: BTreeMap<String, String>,
    /// How the kubelet is switched.
    pub kubelet: Kubelet,
    /// Who asks, for instance the pod's uid; makes no difference to the host.
    pub installer: Option<String>,
}

/// How the kubelet is switched.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kubelet {
    /// Its unit.
    pub unit: String,
    /// `HOST:PORT` where it says that it is healthy.
    pub healthz: String,
    /// How long the node may take to be Ready.
    pub ready_within: Duration,
    /// What has been tried and failed is tried again when this changes.
    pub attempt: String,
    /// The node's name in the cluster; None: only the kubelet's own word is asked for.
    pub node: Option<String>,
}

/// The host, and who runs its services.
pub struct Host {
    /// Its files.
    pub layout: HostLayout,
    /// None: nobody that we can speak to; whoever runs the daemon there is the operator's affair.
    pub systemd: Option<Systemd>,
    /// The daemon's socket, as this process finds it.
    pub socket: PathBuf,
    /// How long a daemon may take to answer.
    pub patience: Duration,
}

/// Why a host is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file can't be read or written.
    #[error("cannot {what} {path}")]
    File {
        /// Read, write, ...
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what Berth wrote.
    #[error("{path} is not what berth writes there")]
    Garbled {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration is refused.
    #[error("the daemon's configuration is refused")]
    Config(#[from] crate::config::ConfigError),
    /// The daemon would not start with it.
    #[error("[image.policy] names {0}, which is not brought along")]
    NoTrust(PathBuf),
    /// A package owns the daemon.
    #[error(
        "{0} belongs to an installed package: remove the package, or keep this node out of the chart's nodeSelector"
    )]
    Packaged(PathBuf),
    /// systemd refuses.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// Another `berth node` is at work.
    #[error("another `berth node` is changing this host: {0} is locked")]
    Busy(PathBuf),
    /// The daemon does not answer.
    #[error("the daemon does not answer at {socket} within {} s: {why}; `journalctl -u berth` tells more", patience.as_secs())]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// How long it was waited for.
        patience: Duration,
        /// What came instead.
        why: String,
    },
    /// The daemon ends as soon as it is started.
    #[error(
        "the daemon has ended {times} times as soon as it was started: {why}; `journalctl -u berth` tells more"
    )]
    Ends {
        /// How often it was seen.
        times: u32,
        /// Its last words.
        why: String,
    },
    /// A runtime refuses a call.
    #[error("the runtime at {socket} refuses {call}: {why}")]
    Runtime {
        /// Its socket.
        socket: PathBuf,
        /// The call.
        call: &'static str,
        /// Its words.
        why: String,
    },
    /// The kubelet is not one that we can point elsewhere.
    #[error("{unit}: {why}; point the kubelet to Berth by hand, and use mode: sidecar")]
    Kubelet {
        /// The kubelet's unit.
        unit: String,
        /// What is in the way.
        why: String,
    },
    /// A host without systemd.
    #[error("the kubelet can be switched only where systemd runs it: use mode: sidecar")]
    NoSystemd,
    /// The switch was undone.
    #[error(
        "the kubelet was switched back to its old runtime: {0}. Berth tries again when the chart's kubelet.attempt, its configuration or its version changes"
    )]
    RolledBack(String),
    /// The cluster's API refuses.
    #[error("the API server at {server}: cannot {what}: {why}")]
    Cluster {
        /// Its address.
        server: String,
        /// What was asked.
        what: String,
        /// Its words.
        why: String,
    },
}

/// For `map_err`: what was done to which file.
fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> NodeError {
    let path = path.to_path_buf();
    move |source| NodeError::File { what, path, source }
}

impl Host {
    /// The lock of those who change the host; a switch under way holds it until the node is Ready.
    async fn lock(&self) -> Result<std::fs::File, NodeError> {
        let path = self.layout.lock();
        let dir = self.layout.at(self.layout.directory());
        std::fs::create_dir_all(&dir).map_err(file("make", &dir))?;
        let opened = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(file("open", &path))?;
        let (end, mut told) = (Instant::now() + self.patience, false);
        while Instant::now() < end {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(std::fs::TryLockError::Error(source)) => {
                    return Err(NodeError::File { what: "lock", path, source });
                }
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!("waiting for another `berth node`, which is changing this host");
            }
        }
        Err(NodeError::Busy(path))
    }
}

/// SHA-256 of parts, each by its length and content, in hexadecimal.
fn digest(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Settings {
    /// Files that the daemon would look for where this installation puts them.
    fn check_trust(&self, config: &Config, host: &HostLayout) -> Result<(), NodeError> {
        let missing = config.image.policy.files().find(|path| {
            let brought = path.strip_prefix(host.trust()).ok().and_then(Path::to_str);
            brought.is_some_and(|name| !self.trust.contains_key(name))
        });
        missing.map_or(Ok(()), |path| Err(NodeError::NoTrust(path.into())))
    }

    /// Everything that makes a difference, with the programs, as a digest.
    fn digest(&self, programs: &Programs) -> String {
        let files = format!("{:?} {:?}", self.registries, self.trust);
        let kubelet = format!("{:?} {:?}", self.mode, self.kubelet);
        let version = programs.version();
        digest(&[version.as_bytes(), self.config.as_bytes(), files.as_bytes(), kubelet.as_bytes()])
    }
}
