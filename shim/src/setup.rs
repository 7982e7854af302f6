//! The verb Setup: from a shim that holds nothing to a pod.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_proto::shim::v1;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use crate::container::Pod;
use crate::failure::Failure;
use crate::{loopback, namespaces, sysctl};

const DEFAULT_SHM: u64 = 64 << 20;

/// A pod that was made.
pub struct Made {
    pub pod: Pod,
    pub init: Option<Pid>,
    /// For Ready.
    pub fds: Vec<OwnedFd>,
}

/// Does all of Setup. The first error ends it; the shim is then of no further use.
pub fn run(setup: &v1::Setup) -> Result<Made, Failure> {
    let owned = sysctl::Owned { network: setup.new_network, ipc: setup.new_ipc };
    let mut sysctls = Vec::with_capacity(setup.sysctls.len());
    for (key, value) in &setup.sysctls {
        sysctls.push((sysctl::path(key, owned)?, sysctl::value(key, value)?));
    }
    if setup.hostname.len() > 64 {
        return Err(Failure::refused(
            "set hostname",
            rustix::io::Errno::NAMETOOLONG,
            format!("hostname {:?} has more than 64 bytes", setup.hostname),
        ));
    }
    setup.cgroups.iter().try_for_each(|directory| join(directory))?;
    adjust_oom_score(setup.oom_score_adj);

    let flags = namespaces::wanted(setup);
    let user_ns = if setup.uid_mappings.is_empty() {
        namespaces::enter_new(flags)?;
        None
    } else {
        Some(namespaces::enter_owned(setup, flags)?)
    };
    if flags.contains(UnshareFlags::NEWUTS) && !setup.hostname.is_empty() {
        rustix::system::sethostname(setup.hostname.as_bytes())
            .map_err(|error| Failure::io("set hostname", &setup.hostname, error))?;
    }
    if setup.new_network {
        loopback::bring_up().map_err(|error| Failure::io("bring up", "lo", error))?;
    }
    sysctl::write_all(&sysctls)?;
    let shm = if setup.new_ipc { Some(shm(setup)?) } else { None };
    let init = if setup.shared_pid {
        Some(namespaces::start_init(user_ns.as_ref().map(AsFd::as_fd))?)
    } else {
        None
    };
    let fds = ready_fds(setup.new_network, user_ns.as_ref())
        .map_err(|error| Failure::io("open", "the pod's namespaces", error))?;
    let (init, init_fd) = init.unzip();
    Ok(Made { pod: Pod { shm, user_ns, init: init_fd }, init, fds })
}

fn ready_fds(network: bool, user_ns: Option<&OwnedFd>) -> std::io::Result<Vec<OwnedFd>> {
    let mut fds = Vec::with_capacity(2);
    if network {
        fds.push(namespaces::open_namespace("net")?);
    }
    if let Some(user_ns) = user_ns {
        fds.push(user_ns.try_clone()?);
    }
    Ok(fds)
}

/// `tasks` on v1: a single thread's write of "0" there waits for nothing, unlike one to cgroup.procs.
fn join(directory: &str) -> Result<(), Failure> {
    let directory = Path::new(directory);
    if !directory.is_absolute() {
        return Err(Failure::protocol(format!("cgroup directory {} is not absolute", directory.display())));
    }
    let write = |name: &str| std::fs::OpenOptions::new().write(true).open(directory.join(name));
    let file = write("tasks").or_else(|_| write("cgroup.procs"));
    file.and_then(|file| Ok(rustix::io::write(&file, b"0")?))
        .map_err(|error| Failure::io("join cgroup", directory.display(), error))?;
    Ok(())
}

fn adjust_oom_score(value: i32) {
    // Lowering needs CAP_SYS_RESOURCE, which not every node grants; the pod works without it.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
        eprintln!("oom_score_adj {value} of the shim: {error}");
    }
}

/// The pod's /dev/shm: a mount that is nowhere until a container takes a clone of it.
fn shm(setup: &v1::Setup) -> Result<OwnedFd, Failure> {
    let root =
        |maps: &[v1::IdMap]| maps.iter().find(|map| map.container_id == 0).map(|map| map.host_id.to_string());
    let size = if setup.shm_size == 0 { DEFAULT_SHM } else { setup.shm_size };
    let mount = || -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
        set("source", "shm")?;
        set("size", &size.to_string())?;
        set("mode", "1777")?;
        if !setup.mount_label.is_empty() {
            set("context", &setup.mount_label)?;
        }
        for (key, maps) in [("uid", &setup.uid_mappings), ("gid", &setup.gid_mappings)] {
            if let Some(id) = root(maps) {
                set(key, &id)?;
            }
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let shm = mount().map_err(|error| Failure::io("mount", format!("/dev/shm of {size} bytes"), error))?;
    if !setup.shm_path.is_empty() {
        attach_where_needed(&shm, &setup.shm_path)
            .map_err(|error| Failure::io("attach", &setup.shm_path, error))?;
    }
    Ok(shm)
}

/// Before Linux 6.15 only a mount that is somewhere can be cloned.
fn attach_where_needed(shm: &OwnedFd, path: &str) -> std::io::Result<()> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if !matches!(rustix::mount::open_tree(shm, c"", clone), Err(rustix::io::Errno::INVAL)) {
        return Ok(());
    }
    std::fs::create_dir(path)?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(shm, c"", rustix::fs::CWD, path, whole)?)
}
