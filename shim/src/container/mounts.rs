//! Attaching the prepared mounts inside the container's root: each target is resolved once, in the root, and attached to
//! by descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::path::Root;
use rustix::fs::{Mode, OFlags};

use super::devices::Device;
use super::failure::{Failing, Result, SpawnError};
use super::filesystem::{attach, make};
use super::hierarchies::{self, Hierarchies};
use super::sources::{Prepared, Source};
use super::{devices, masks};

const PROC_MAGIC: u64 = 0x9fa0;
/// What other software may lay over single files of /proc to show a container its own limits.
const PROC_FILES: [&str; 9] =
    ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"];

/// Everything that is mounted or made inside the root.
pub(super) struct Interior {
    pub mounts: Vec<Prepared>,
    pub hierarchies: Option<Hierarchies>,
    pub devices: Vec<Device>,
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    /// A detached mount of the host's /dev/null, where a file may have to be masked.
    pub null: Option<OwnedFd>,
}

/// Attaches the mounts in their order, makes the devices as soon as /dev is there, then masks.
pub(super) fn populate(root: &Root, interior: Interior) -> Result<()> {
    let mut devices = Some(interior.devices);
    for mount in interior.mounts {
        let is_dev = mount.destination == Path::new("dev");
        let bound = matches!(mount.source, Source::Tree { .. });
        attach_one(root, mount, interior.hierarchies.as_ref())?;
        if is_dev && bound {
            // It is the host's: it has devices of its own, and none must be added.
            devices = None;
        } else if is_dev && let Some(devices) = devices.take() {
            devices::make(root, devices)?;
        }
    }
    if let Some(devices) = devices {
        devices::make(root, devices)?;
    }
    masks::make_read_only(root, &interior.readonly)?;
    masks::hide(root, &interior.masked, interior.null)
}

fn attach_one(root: &Root, mount: Prepared, hierarchies: Option<&Hierarchies>) -> Result<()> {
    let destination = mount.destination;
    let step = || format!("mount /{}", destination.display());
    let target = target(root, &destination, &mount.source)?;
    let tree = match mount.source {
        Source::Tree { tree, .. } => {
            guard_proc(&destination, tree.as_fd(), target.as_fd())?;
            tree
        }
        Source::Filesystem { kind, name, options } => {
            guard_proc_from(&destination, &kind, target.as_fd())?;
            make(&kind, &name, &options, &destination)?
        }
        Source::Cgroups { options } => {
            let hierarchies =
                hierarchies.ok_or_else(|| SpawnError::refused(step(), "no cgroup hierarchy is known"))?;
            return hierarchies::mount(hierarchies, &options, target.as_fd(), &destination);
        }
    };
    attach(tree.as_fd(), target.as_fd()).failing(step)
}

/// Opens the object to mount on, making it where it is missing.
fn target(root: &Root, destination: &Path, source: &Source) -> Result<OwnedFd> {
    let step = || format!("open the mount destination /{}", destination.display());
    if ["proc", "sys", "dev"].iter().any(|name| destination == Path::new(name)) {
        return real_directory(root, destination);
    }
    match source {
        Source::Tree { directory: false, .. } => {
            let target = root.create_file(destination, Mode::from_raw_mode(0o644)).failing(step)?;
            if is_directory(target.as_fd()).failing(step)? {
                let text = format!("a file cannot be mounted on the directory /{}", destination.display());
                return Err(SpawnError::refused(step(), text));
            }
            Ok(target)
        }
        _ => root.mkdir_all(destination, Mode::from_raw_mode(0o755)).failing(step),
    }
}

/// /proc, /sys and /dev must be what they seem: no image may lead the runtime's writes elsewhere.
pub(super) fn real_directory(root: &Root, name: &Path) -> Result<OwnedFd> {
    let step = || format!("open the image's /{} as a directory that is no link", name.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match root.open_without_links(name, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755)).failing(step)?;
            root.open_without_links(name, flags).failing(step)
        }
        result => result.failing(step),
    }
}

/// Nothing but procfs may lie on procfs, except over a few files of numbers.
fn guard_proc(destination: &Path, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let harmless = destination
        .strip_prefix("proc")
        .is_ok_and(|file| PROC_FILES.iter().any(|allowed| file == Path::new(allowed)));
    if harmless || (destination != Path::new("proc") && !is_proc(target)?) || is_proc(tree)? {
        return Ok(());
    }
    Err(not_over_proc(destination))
}

fn guard_proc_from(destination: &Path, kind: &str, target: BorrowedFd<'_>) -> Result<()> {
    let over = destination == Path::new("proc") || is_proc(target)?;
    if over && kind != "proc" { Err(not_over_proc(destination)) } else { Ok(()) }
}

fn not_over_proc(destination: &Path) -> SpawnError {
    let step = format!("mount /{}", destination.display());
    let message = format!("{step}: nothing may be mounted over /proc");
    SpawnError::refused(step, message)
}

fn is_proc(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstatfs(fd).failing(|| "read the kind of a file system".to_owned())?;
    Ok(stat.f_type.cast_unsigned() == PROC_MAGIC)
}

pub(super) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}
