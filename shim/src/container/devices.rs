//! Device nodes and the links in /dev. Which devices may be used is decided by the devices cgroup, elsewhere.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::path::Root;
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::failure::{Failing, Result, SpawnError};
use super::filesystem::attach;
use super::mounts::real_directory;
use super::options::Bind;
use super::sources::{clone_at, make_read_only};
use super::spec;

/// What every container has: name under /dev, major, minor.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A device node to be made.
pub(super) struct Device {
    /// From the container's root, without leading slash.
    path: PathBuf,
    kind: FileType,
    number: (u32, u32),
    mode: Mode,
    owner: (u32, u32),
    /// The host's node as a detached mount, where the container may not make nodes.
    bound: Option<OwnedFd>,
}

/// The default devices and those of the spec. `bound`: by mounts of the host's nodes, for a user namespace.
pub(super) fn prepare(devices: &[spec::Device], bound: bool) -> Result<Vec<Device>> {
    let defaults = DEFAULT.iter().map(|(name, major, minor)| Device {
        path: Path::new("dev").join(name),
        kind: FileType::CharacterDevice,
        number: (*major, *minor),
        mode: Mode::from_raw_mode(0o666),
        owner: (0, 0),
        bound: None,
    });
    let mut prepared: Vec<Device> = defaults.collect();
    for device in devices {
        let device = parse(device)?;
        prepared.retain(|other| other.path != device.path);
        prepared.push(device);
    }
    if bound {
        for device in prepared.iter_mut().filter(|device| device.kind != FileType::Fifo) {
            device.bound = Some(of_host(device)?);
        }
    }
    Ok(prepared)
}

fn parse(device: &spec::Device) -> Result<Device> {
    let name = device.path.display();
    let refuse =
        |why: &str| SpawnError::refused(format!("make device {name}"), format!("device {name} {why}"));
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return Err(refuse("is neither c, u, b nor p")),
    };
    let path = device.path.strip_prefix("/").map_err(|_| refuse("has a relative path"))?;
    if path.file_name().is_none() || path.components().any(|name| name.as_os_str() == "..") {
        return Err(refuse("has a path that is no name inside the container"));
    }
    Ok(Device {
        path: path.to_owned(),
        kind,
        number: (device.major, device.minor),
        mode: Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777),
        owner: (device.uid, device.gid),
        bound: None,
    })
}

/// The host's node of the same number: under the same path, or where udev lists it by number.
fn of_host(device: &Device) -> Result<OwnedFd> {
    let (major, minor) = device.number;
    let class = if device.kind == FileType::BlockDevice { "block" } else { "char" };
    for path in [Path::new("/").join(&device.path), PathBuf::from(format!("/dev/{class}/{major}:{minor}"))] {
        if let Ok(tree) = clone_at(&path, Bind::One)
            && rustix::fs::fstat(&tree).is_ok_and(|stat| device.is(&stat))
        {
            // Devices can be written on a read-only mount, but their mode, owner and times cannot: they are the host's.
            make_read_only(tree.as_fd(), false)
                .failing(|| format!("protect the host's device {major}:{minor}"))?;
            return Ok(tree);
        }
    }
    let step = format!("open the host's device {major}:{minor}");
    let message =
        format!("the host has no node of device {major}:{minor} to bind on /{}", device.path.display());
    Err(SpawnError::refused(step, message))
}

/// Makes the nodes, and the links where /dev exists for it.
pub(super) fn make(root: &Root, devices: Vec<Device>) -> Result<()> {
    let dev = real_directory(root, Path::new("dev"))?;
    for device in devices {
        device.make(root).failing(|| format!("make device /{}", device.path.display()))?;
    }
    for (name, aim) in LINKS {
        match rustix::fs::symlinkat(aim, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).failing(|| format!("make the link /dev/{name}")),
        }
    }
    Ok(())
}

impl Device {
    fn make(&self, root: &Root) -> std::io::Result<()> {
        if let Some(bound) = &self.bound {
            let target = root.create_file(&self.path, Mode::from_raw_mode(0o666))?;
            return Ok(attach(bound.as_fd(), target.as_fd())?);
        }
        let name = self.path.file_name().ok_or(Errno::INVAL)?;
        let parent =
            root.mkdir_all(self.path.parent().unwrap_or(Path::new("")), Mode::from_raw_mode(0o755))?;
        let number = rustix::fs::makedev(self.number.0, self.number.1);
        match rustix::fs::mknodat(&parent, name, self.kind, self.mode, number) {
            Ok(()) => {}
            // An image without a /dev of its own on top may have the node already, if it is the right one.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                return if self.is(&stat) { Ok(()) } else { Err(Errno::EXIST.into()) };
            }
            Err(error) => return Err(error.into()),
        }
        if self.owner != (0, 0) {
            let owner = Some(rustix::fs::Uid::from_raw(self.owner.0));
            let group = Some(rustix::fs::Gid::from_raw(self.owner.1));
            rustix::fs::chownat(&parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn is(&self, stat: &Stat) -> bool {
        let same_kind = FileType::from_raw_mode(stat.st_mode) == self.kind;
        same_kind && stat.st_rdev == rustix::fs::makedev(self.number.0, self.number.1)
    }
}

/// The host's /dev/null as a detached mount, verified to be the device 1:3.
pub(super) fn null() -> Result<OwnedFd> {
    of_host(&Device {
        path: PathBuf::from("dev/null"),
        kind: FileType::CharacterDevice,
        number: (1, 3),
        mode: Mode::empty(),
        owner: (0, 0),
        bound: None,
    })
}
