//! What can go wrong with control groups.

use std::io;
use std::path::PathBuf;

use crate::error::{Kind, io_kind};

/// A failure, with the object it happened to.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The host has neither `/sys/fs/cgroup` of version 2 nor any version 1 hierarchy.
    #[error("no control group hierarchy is mounted")]
    NoHierarchy,
    /// The systemd driver was asked for on a host that systemd does not run.
    #[error(
        "cgroup driver \"systemd\" is configured, but systemd does not run this host (no /run/systemd/system)"
    )]
    NoSystemd,
    /// The pod's parent is refused.
    #[error("cgroup parent {parent:?} is refused: {reason}")]
    Parent {
        /// As requested.
        parent: String,
        /// What a parent must be.
        reason: &'static str,
    },
    /// A limit is refused before the kernel sees it.
    #[error("{resource} {value:?} is refused: {reason}")]
    Resource {
        /// Which limit.
        resource: &'static str,
        /// As requested.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// A limit that the kernel can't enforce here.
    #[error(
        "{resource} {value:?} cannot be enforced: cgroup file {file} does not exist here (controller absent or not enabled)"
    )]
    Unenforceable {
        /// Which limit.
        resource: &'static str,
        /// As requested.
        value: String,
        /// The file that would take it.
        file: String,
    },
    /// The kernel refused a value.
    #[error("cannot set {resource}: writing {value:?} to {path}")]
    Write {
        /// Which limit, or what the write is for.
        resource: &'static str,
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// errno.
        #[source]
        source: io::Error,
    },
    /// A cgroup file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// errno.
        #[source]
        source: io::Error,
    },
    /// A cgroup can't be made.
    #[error("cannot create cgroup {path}")]
    Create {
        /// Its directory.
        path: PathBuf,
        /// errno.
        #[source]
        source: io::Error,
    },
    /// The device filter can't be loaded or attached.
    #[error("cannot restrict the devices of cgroup {path}")]
    DeviceFilter {
        /// The cgroup's directory.
        path: PathBuf,
        /// errno.
        #[source]
        source: io::Error,
    },
    /// The kernel's list of allowed devices is not what was asked for.
    #[error("cgroup {path} allows device {entry:?}, which nobody asked for")]
    DeviceList {
        /// The cgroup's directory.
        path: PathBuf,
        /// The kernel's line.
        entry: String,
    },
    /// A cgroup does not go away.
    #[error("cannot remove cgroup {path}: it still holds processes {processes:?}")]
    Leftover {
        /// What is left.
        path: PathBuf,
        /// Who is in it.
        processes: Vec<i32>,
        /// errno of the last attempt.
        #[source]
        source: io::Error,
    },
    /// Processes that survive SIGKILL, for instance in an uninterruptible wait.
    #[error(
        "cgroup {path} still holds processes after SIGKILL: {processes:?} (pid and where it waits in the kernel)"
    )]
    Unkillable {
        /// The cgroup's directory.
        path: PathBuf,
        /// Each pid with its wait channel (proc_pid_wchan(5)).
        processes: Vec<(i32, String)>,
    },
    /// A process runs elsewhere than it should.
    #[error("process {pid} is in cgroup {found:?} instead of {expected:?}")]
    Astray {
        /// The process.
        pid: i32,
        /// Where it should be.
        expected: String,
        /// Where it is.
        found: String,
    },
    /// A systemd scope needs its first process.
    #[error("the scope {unit} needs the shim's pid: systemd makes no empty scope")]
    NoProcess {
        /// The unit.
        unit: String,
    },
    /// systemd did not do it.
    #[error(transparent)]
    Systemd(#[from] crate::drivers::systemd::SystemdError),
    /// The work was given up because the daemon ends.
    #[error("cgroup work was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl CgroupError {
    /// Its kind: a limit that is refused is the request's fault, whoever refuses it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Parent { .. } | Self::Resource { .. } | Self::Unenforceable { .. } | Self::Write { .. } => {
                Kind::InvalidArgument
            }
            Self::Create { source, .. } | Self::Read { source, .. } => io_kind(source),
            Self::Leftover { .. } | Self::Unkillable { .. } => Kind::DeadlineExceeded,
            Self::Interrupted(_) => Kind::Unavailable,
            _ => Kind::Internal,
        }
    }
}
