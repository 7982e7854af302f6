//! The container's first process, from its clone to the execution of the workload.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::Mode;
use rustix::mount::MountPropagationFlags;

use super::cgroups::Membership;
use super::failure::{Failing, Result};
use super::mounts::{self, Interior};
use super::status::Reporter;
use super::workload::{Streams, Workload};
use super::{Stdio, rootfs, terminal};

/// What the builder has prepared.
pub(super) struct Plan {
    pub membership: Membership,
    pub new_cgroup_namespace: bool,
    /// A detached tree of mounts.
    pub root: OwnedFd,
    pub interior: Interior,
    pub readonly: bool,
    pub root_propagation: Option<MountPropagationFlags>,
    pub stdio: Stdio,
}

/// Makes the container's view and executes the workload; returns only with what failed.
pub(super) fn run(plan: Plan, workload: Workload, reporter: &Reporter) -> Result<()> {
    plan.membership.join()?;
    if plan.new_cgroup_namespace {
        // Not a flag of clone3: that would take the builder's cgroup as the namespace's root.
        unshare(CloneFlags::CLONE_NEWCGROUP).failing(|| "make a cgroup namespace".to_owned())?;
    }
    rustix::process::umask(Mode::empty());
    let root = rootfs::attach(plan.root)?;
    mounts::populate(&root, plan.interior)?;
    let streams = match plan.stdio {
        Stdio::Pipes { stdin, stdout, stderr } => Streams::Pipes([stdin, stdout, stderr]),
        Stdio::Terminal => {
            let terminal = terminal::open(&root, workload.console_size)?;
            terminal::bind_console(&root, &terminal)?;
            reporter.terminal(terminal.master.as_fd()).failing(|| "send the terminal".to_owned())?;
            Streams::Terminal(terminal.peer)
        }
    };
    rootfs::enter(&root, plan.readonly, plan.root_propagation)?;
    drop(root);
    workload.make_directory()?;
    workload.execute(streams, reporter)
}
