//! Making a container's processes: everything that runs in children which the shim forks, and the two calls that fork
//! them. Not here: the pod's own namespaces, logs, and what happens after the workload executes.
//!
//! `start`: fork a builder (`builder`), which parses the spec and opens mount sources in the host's view, then clones the
//! container's first process (`init`) as a child of the shim. `exec`: the same with `join`, into a running container.
//! Both end in `workload::execute`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

mod builder;
mod capabilities;
mod cgroups;
mod credentials;
mod devices;
mod executable;
mod failure;
mod filesystem;
mod hierarchies;
mod init;
mod join;
mod labels;
mod limits;
mod masks;
mod mounts;
mod options;
mod rootfs;
mod sources;
mod spawn;
mod spec;
mod status;
mod terminal;
mod user_namespace;
mod workload;

pub use failure::SpawnError;
pub use spawn::{Progress, Spawning};

/// What the pod gives each of its containers.
pub struct Pod {
    /// Detached tmpfs mount of the pod, cloned into each container that mounts `type: shm, source: pod`.
    pub shm: Option<OwnedFd>,
    /// The user namespace that owns the pod's others.
    pub user_ns: Option<OwnedFd>,
    /// pidfd of the init of the pod's PID namespace.
    pub init: Option<OwnedFd>,
}

/// Where the standard streams go.
pub enum Stdio {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The child makes a terminal in the container's devpts and sends its master back.
    Terminal,
}

/// The PID namespace of a container.
pub enum PidNamespace<'a> {
    New,
    /// That of the process which the pidfd refers to.
    Join(BorrowedFd<'a>),
    Host,
}

/// A container to be started.
pub struct Start<'a> {
    /// Host directory with `config.json`, an OCI runtime spec.
    pub bundle: &'a Path,
    /// The root: a detached mount, or an O_PATH directory.
    pub root: OwnedFd,
    /// Detached mounts, for the mounts of type `image` in the spec; each serves one.
    pub volumes: Vec<OwnedFd>,
    /// File of `struct sock_filter` records.
    pub seccomp: Option<OwnedFd>,
    /// Names of filter flags as in the OCI runtime spec.
    pub seccomp_flags: &'a [String],
    /// Cgroup directories, one for each hierarchy; at most one of them of cgroup v2.
    pub cgroups: &'a [String],
    /// The node has cgroup v2 only.
    pub cgroup_v2: bool,
    pub stdio: Stdio,
    pub pid: PidNamespace<'a>,
    pub pod: &'a Pod,
}

/// A further process for a running container.
pub struct Exec<'a> {
    /// File with the OCI `process` object as JSON; read from its beginning.
    pub process: OwnedFd,
    /// pidfd of the container's first process.
    pub target: BorrowedFd<'a>,
    pub seccomp: Option<OwnedFd>,
    pub seccomp_flags: &'a [String],
    pub cgroups: &'a [String],
    pub stdio: Stdio,
}

/// Starts a container; returns after one fork. The caller must be single-threaded.
///
/// # Errors
/// Only what prevents that fork; the rest comes through [`Spawning::next`].
pub fn start(request: Start<'_>) -> Result<Spawning, SpawnError> {
    let wants_terminal = matches!(request.stdio, Stdio::Terminal);
    spawn::spawn(wants_terminal, |reporter| builder::run(request, reporter))
}

/// Executes a process in a running container; returns after one fork. The caller must be single-threaded.
///
/// # Errors
/// Only what prevents that fork; the rest comes through [`Spawning::next`].
pub fn exec(request: Exec<'_>) -> Result<Spawning, SpawnError> {
    let wants_terminal = matches!(request.stdio, Stdio::Terminal);
    spawn::spawn(wants_terminal, |reporter| join::run(request, reporter))
}
