//! A further process in a running container: a fork of the shim that joins the container's namespaces and clones the
//! process as a child of the shim.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use berth_sys::clone::{Side, clone3};
use berth_sys::path::Root;
use berth_sys::process::keep_only;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::builder::conceal;
use super::cgroups::Membership;
use super::failure::{Failing, Result, SpawnError};
use super::spec::{self, Process};
use super::status::Reporter;
use super::workload::{Streams, Workload};
use super::{Exec, Stdio, credentials, limits, terminal, user_namespace};

/// Joins the container; returns in the builder when the process exists, or with what failed in either.
pub(super) fn run(request: Exec<'_>, reporter: &Reporter) -> Result<()> {
    conceal()?;
    keep_only(&descriptors(&request, reporter)).failing(|| "close the shim's descriptors".to_owned())?;
    let bytes = contents(&request.process).failing(|| "read the process to execute".to_owned())?;
    let process: Process = spec::parse(&bytes, "the process to execute")?;
    let workload = Workload::prepare(&process, request.seccomp.as_ref(), request.seccomp_flags)?;
    let target = pid_of(request.target)?;
    workload.own_pipes(&request.stdio, &user_namespace::mappings_of(target)?)?;
    limits::raise(&workload.limits)?;
    // Never the shim's own score, which protects it from the OOM killer.
    limits::set_oom_score(match process.oom_score_adj {
        Some(score) => score,
        None => limits::oom_score_of(target)?,
    })?;
    let membership = Membership::open(request.cgroups, has_own_namespace(target, "user")?)?;
    let own_cgroup_namespace = has_own_namespace(target, "cgroup")?;

    join_namespaces(request.target)?;
    let step = || "clone the process".to_owned();
    match clone3(CloneFlags::CLONE_PARENT, membership.unified()).failing(step)? {
        Side::Parent(pid) => reporter.spawned(pid).failing(|| "report the process's pid".to_owned()),
        Side::Child => {
            membership.join()?;
            // Only now: from inside a cgroup namespace, the kernel would not find the cgroup that clone3 is to enter
            // (where cgroup2 is mounted with nsdelegate, as systemd does, it refuses).
            if own_cgroup_namespace {
                mark(request.target)?;
            }
            let streams = streams(request.stdio, &workload, reporter)?;
            workload.execute(streams, reporter)
        }
    }
}

fn descriptors<'a>(request: &'a Exec<'_>, reporter: &'a Reporter) -> Vec<BorrowedFd<'a>> {
    let mut kept = vec![reporter.as_fd(), request.process.as_fd(), request.target];
    kept.extend(request.seccomp.iter().map(AsFd::as_fd));
    kept.extend(request.stdio.descriptors());
    kept
}

/// The whole file, from its beginning, wherever its offset stands.
pub(super) fn contents(file: &OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match rustix::io::pread(file, &mut buffer, bytes.len() as u64)? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
}

/// The host's number of the process behind a pidfd.
fn pid_of(process: BorrowedFd<'_>) -> Result<Pid> {
    let step = || "find the container's first process".to_owned();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).failing(step)?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    match pid {
        Some(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(SpawnError::refused(step(), "the container is not running")),
    }
}

/// Whether the container's namespace of a kind is another than the shim's.
fn has_own_namespace(target: Pid, kind: &str) -> Result<bool> {
    let step = || format!("look at the container's {kind} namespace");
    let of = |process: &str| std::fs::metadata(format!("/proc/{process}/ns/{kind}"));
    let (own, theirs) = (of("self").failing(step)?, of(&target.to_string()).failing(step)?);
    Ok((own.dev(), own.ino()) != (theirs.dev(), theirs.ino()))
}

/// A cgroup namespace like the container's, by which all that the exec starts is found again; see executed.rs.
fn mark(target: BorrowedFd<'_>) -> Result<()> {
    let step = || "make a cgroup namespace".to_owned();
    match unshare(CloneFlags::CLONE_NEWCGROUP) {
        // user.max_cgroup_namespaces is reached: the container's own does, and killing is less sure.
        Err(Errno::ENOSPC) => setns(target, CloneFlags::CLONE_NEWCGROUP).failing(step),
        other => other.failing(step),
    }
}

fn join_namespaces(target: BorrowedFd<'_>) -> Result<()> {
    let step = || "join the container's namespaces".to_owned();
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    match setns(target, all | CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            credentials::become_root()?;
            conceal()
        }
        // The user namespace is the shim's own, which cannot be entered again.
        Err(Errno::EINVAL) => setns(target, all).failing(step),
        Err(error) => Err(error).failing(step),
    }
}

fn streams(stdio: Stdio, workload: &Workload, reporter: &Reporter) -> Result<Streams> {
    match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => Ok(Streams::Pipes([stdin, stdout, stderr])),
        Stdio::Terminal => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open("/", flags, Mode::empty())
                .failing(|| "open the container's root".to_owned())?;
            let terminal = terminal::open(&Root::open(root), workload.console_size)?;
            reporter.terminal(terminal.master.as_fd()).failing(|| "send the terminal".to_owned())?;
            Ok(Streams::Terminal(terminal.peer))
        }
    }
}
