//! The builder of a container: a fork of the shim that does in the host's view what needs it, and then clones the
//! container's first process. All memory that this takes ends with the two.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use berth_sys::clone::{Side, clone3};
use berth_sys::process::keep_only;
use nix::sched::{CloneFlags, setns};
use rustix::process::DumpableBehavior;

use super::cgroups::Membership;
use super::failure::{Failing, Result};
use super::hierarchies::Hierarchies;
use super::init::{self, Plan};
use super::mounts::Interior;
use super::sources::{Prepared, Source};
use super::spec::Spec;
use super::status::Reporter;
use super::workload::Workload;
use super::{PidNamespace, Pod, Start, Stdio, credentials, devices, limits, options, rootfs, sources, spec};

/// Builds the container; returns in the builder when its first process exists, or with what failed in either.
pub(super) fn run(request: Start<'_>, reporter: &Reporter) -> Result<()> {
    conceal()?;
    keep_only(&descriptors(&request, reporter)).failing(|| "close the shim's descriptors".to_owned())?;
    let path = request.bundle.join("config.json");
    let name = path.display().to_string();
    let bytes = std::fs::read(&path).failing(|| format!("read {name}"))?;
    let spec: Spec = spec::parse(&bytes, &name)?;
    rustix::process::chdir(request.bundle).failing(|| format!("enter {}", request.bundle.display()))?;

    let workload = Workload::prepare(&spec.process, request.seccomp.as_ref(), request.seccomp_flags)?;
    workload.own_pipes(
        &request.stdio,
        if request.pod.user_ns.is_some() { &spec.linux.uid_mappings } else { &[] },
    )?;
    limits::raise(&workload.limits)?;
    // Never the shim's own score, which protects it from the OOM killer.
    limits::set_oom_score(spec.process.oom_score_adj.unwrap_or(0))?;
    let membership = Membership::open(request.cgroups, request.pod.user_ns.is_some())?;
    let mounts = sources::prepare(&spec, request.pod, request.volumes)?;
    let interior = interior(&spec, mounts, request.pod, request.cgroup_v2)?;
    let root = rootfs::prepare(request.root)?;
    let root_propagation = options::root_propagation(&spec.linux.rootfs_propagation)?;

    enter_namespaces(&request.pid, request.pod)?;
    let mut flags = CloneFlags::CLONE_PARENT | CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWPID, matches!(request.pid, PidNamespace::New));
    let step = || "clone the container's first process".to_owned();
    match clone3(flags, membership.unified()).failing(step)? {
        Side::Parent(pid) => reporter.spawned(pid).failing(|| "report the container's pid".to_owned()),
        Side::Child => {
            let new_cgroup_namespace =
                spec.linux.namespaces.iter().any(|namespace| namespace.kind == "cgroup");
            let readonly = spec.root.readonly;
            let stdio = request.stdio;
            let plan =
                Plan { membership, new_cgroup_namespace, root, interior, readonly, root_propagation, stdio };
            init::run(plan, workload, reporter)
        }
    }
}

/// From here to the execution of the workload nobody may trace this process or look into its descriptors.
pub(super) fn conceal() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .failing(|| "make the builder untraceable".to_owned())
}

fn descriptors<'a>(request: &'a Start<'_>, reporter: &'a Reporter) -> Vec<BorrowedFd<'a>> {
    let mut kept = vec![reporter.as_fd(), request.root.as_fd()];
    kept.extend(request.seccomp.iter().chain(&request.volumes).map(AsFd::as_fd));
    kept.extend(
        [&request.pod.shm, &request.pod.user_ns, &request.pod.init].into_iter().flatten().map(AsFd::as_fd),
    );
    if let PidNamespace::Join(process) = request.pid {
        kept.push(process);
    }
    kept.extend(request.stdio.descriptors());
    kept
}

impl Stdio {
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Self::Terminal => Vec::new(),
        }
    }
}

fn interior(spec: &Spec, mounts: Vec<Prepared>, pod: &Pod, cgroup_v2: bool) -> Result<Interior> {
    let cgroups = mounts.iter().any(|mount| matches!(mount.source, Source::Cgroups { .. }));
    let hierarchies = if cgroups { Some(Hierarchies::of_this_node(cgroup_v2)?) } else { None };
    let host_dev = |mount: &Prepared| {
        mount.destination == Path::new("dev") && matches!(mount.source, Source::Tree { .. })
    };
    let needs_devices = !mounts.iter().any(host_dev);
    let devices = if needs_devices {
        devices::prepare(&spec.linux.devices, pod.user_ns.is_some())?
    } else {
        Vec::new()
    };
    let masked = spec.linux.masked_paths.clone();
    let null = if masked.is_empty() { None } else { Some(devices::null()?) };
    Ok(Interior { mounts, hierarchies, devices, masked, readonly: spec.linux.readonly_paths.clone(), null })
}

/// Enters the PID namespace (for children) while the host's rights last, then the pod's user namespace.
fn enter_namespaces(pid: &PidNamespace<'_>, pod: &Pod) -> Result<()> {
    if let PidNamespace::Join(process) = pid {
        setns(process, CloneFlags::CLONE_NEWPID).failing(|| "join the PID namespace".to_owned())?;
    }
    if let Some(namespace) = &pod.user_ns {
        setns(namespace, CloneFlags::CLONE_NEWUSER).failing(|| "join the pod's user namespace".to_owned())?;
        credentials::become_root()?;
        conceal()?;
    }
    Ok(())
}
