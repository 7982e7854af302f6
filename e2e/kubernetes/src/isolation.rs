//! Namespaces around the whole cluster: whatever it starts ends with its process 1, its network and its mounts with
//! the last process. So a run that is interrupted or killed leaves only files and empty cgroups, which the process
//! outside removes.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use berth_e2e::cgroup::{Driver, Parent};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::directory::{self, Directory};

const STAGE: &str = "BERTH_E2E_CLUSTER_STAGE";
/// The node's host name, and its name in the cluster.
pub const NODE: &str = "berth-node";

/// Where this program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On the machine.
    Outside,
    /// Process 1 of the namespaces.
    First,
    /// In the namespaces.
    Inside,
}

impl Stage {
    /// What the environment says.
    pub fn from_env() -> Self {
        match std::env::var(STAGE).as_deref() {
            Ok("first") => Self::First,
            Ok("inside") => Self::Inside,
            _ => Self::Outside,
        }
    }
}

/// Runs this program again as process 1 of new namespaces, gives its exit code, and cleans up after it.
pub fn enclose() -> Result<i32> {
    let scratch = tempfile::Builder::new().prefix("berth-k8s-").tempdir()?;
    let directory = Directory::new(scratch.path());
    directory.make()?;
    let signals = block_signals()?;
    unshare(CloneFlags::CLONE_NEWPID).context("a PID namespace: this needs root")?;
    let code = attend(&again("first", scratch.path())?, &signals);
    if let Ok(name) = std::fs::read_to_string(directory.cgroup()) {
        Parent::new(Driver::Cgroupfs, name.trim()).remove_empty();
    }
    keep_logs(&directory)?;
    code
}

/// As process 1: makes the other namespaces, and reaps.
pub fn first() -> Result<i32> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let others = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(others).context("unshare")?;
    // Shared among ourselves, as systemd has it: volumes that a container mounts shall reach the node.
    for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | kind, None::<&str>).context("mount /")?;
    }
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).context("mount /proc")?;
    nix::unistd::sethostname(NODE)?;
    let signals = block_signals()?;
    attend(&again("inside", Directory::from_env()?.path())?, &signals)
}

fn again(stage: &str, directory: &Path) -> Result<Child> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(arguments.next().unwrap_or_default());
    command.args(arguments).env(STAGE, stage).env(directory::VARIABLE, directory);
    if stage == "inside" {
        // The runtime's scratch directory shall be on the node's own disk.
        command.env("TMPDIR", Directory::new(directory).disk());
    }
    command.spawn().context("run myself again")
}

fn awaited_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect()
}

fn block_signals() -> Result<SigSet> {
    let signals = awaited_signals();
    signals.thread_block()?;
    Ok(signals)
}

/// As the process inside, before it has threads: programs inherit what is blocked.
pub fn unblock_signals() -> Result<()> {
    Ok(awaited_signals().thread_unblock()?)
}

/// Waits for a child, reaps all others, and passes on what asks this process to end.
fn attend(child: &Child, signals: &SigSet) -> Result<i32> {
    let child = Pid::from_raw(child.id().cast_signed());
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return Ok(code);
                }
            }
            other => {
                let _ = kill(child, other);
            }
        }
    }
}

fn reap(child: Pid) -> Option<i32> {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).ok()? {
            WaitStatus::Exited(pid, code) if pid == child => return Some(code),
            WaitStatus::Signaled(pid, signal, _) if pid == child => return Some(128 + signal as i32),
            WaitStatus::StillAlive => return None,
            _ => {}
        }
    }
}

/// The logs of the last cluster stay in the cache, for whoever wants to know why.
fn keep_logs(directory: &Directory) -> Result<()> {
    let kept = berth_e2e::cache().join("e2e-kubernetes");
    std::fs::create_dir_all(&kept)?;
    // The runtime's is a link to nowhere if the cluster was killed.
    for entry in std::fs::read_dir(directory.logs())?.flatten().filter(|entry| entry.path().exists()) {
        std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    Ok(())
}
