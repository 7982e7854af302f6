//! Facts of the node: what its kernel offers, and its devices. What does not live here: what containers get of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::capability;

/// The node as the daemon found it at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The node's own host name, for pods with the host's network.
    pub hostname: String,
    /// The kernel's version: major, minor.
    pub kernel: (u32, u32),
    /// /sys/fs/cgroup is cgroup v2 and nothing else.
    pub cgroup_v2: bool,
    /// The kernel filters system calls.
    pub seccomp: bool,
    /// SELinux is enabled.
    pub selinux: bool,
    /// What the daemon may hand out: its bounding set.
    pub capabilities: capability::Set,
}

impl Host {
    /// Whether a mount and all below it can be made read-only at once: mount_setattr(2).
    pub fn sets_mounts_recursively(&self) -> bool {
        self.kernel >= (5, 12)
    }

    /// Looks at the node. What can't be found out counts as absent.
    pub fn detect() -> Self {
        let uname = rustix::system::uname();
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            hostname: hostname(),
            kernel: version(&uname.release().to_string_lossy()),
            cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            selinux: crate::drivers::selinux::is_on(),
            capabilities: bounding(&text("/proc/self/status")),
        }
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn bounding(status: &str) -> capability::Set {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bits = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    capability::Set::from_bits(bits.unwrap_or(0))
}

/// A device node of the host, and where a container is to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Absolute path inside.
    pub path: PathBuf,
    /// Block or character.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of the letters r, w, m: what the device cgroup is to allow.
    pub access: String,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Char,
}

/// Why a device can't be given to a container.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It can't be looked at.
    #[error("cannot read device {path} of the node")]
    Read {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Neither a device nor a directory with devices below it.
    #[error("{path} of the node is not a device, nor a directory with a device in it")]
    NotDevice {
        /// On the host.
        path: PathBuf,
    },
    /// No end of directories.
    #[error("{path} of the node has more than {DEEPEST} levels of directories")]
    TooDeep {
        /// On the host.
        path: PathBuf,
    },
}

const DEEPEST: usize = 16;

/// The device at `host`, or, if that is a directory, each device below it, with its path below `inside`.
/// Links are followed at `host` itself only (device plugins hand out links).
pub fn devices(host: &Path, inside: &Path, access: &str) -> Result<Vec<HostDevice>, DeviceError> {
    let read = |source| DeviceError::Read { path: host.to_path_buf(), source };
    let metadata = fs::metadata(host).map_err(read)?;
    let mut found = Vec::new();
    if metadata.is_dir() {
        let whole = fs::canonicalize(host).map_err(read)?;
        collect(&whole, inside, access, &mut found, 0)?;
    } else {
        found.extend(device(&metadata, inside, access));
    }
    if found.is_empty() {
        return Err(DeviceError::NotDevice { path: host.to_path_buf() });
    }
    Ok(found)
}

/// Each device below /dev, for privileged containers; what each container has of its own anyway is left out.
pub fn all_devices() -> Result<Vec<HostDevice>, DeviceError> {
    let mut found = devices(Path::new("/dev"), Path::new("/dev"), "rwm")?;
    let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.lxd-mounts"];
    found.retain(|device| !own.iter().any(|own| device.path.starts_with(own)));
    found.retain(|device| !OWN_DEVICES.iter().any(|own| device.path == Path::new(own)));
    Ok(found)
}

const OWN_DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
];

fn device(metadata: &fs::Metadata, inside: &Path, access: &str) -> Option<HostDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => DeviceKind::Block,
        kind if kind.is_char_device() => DeviceKind::Char,
        _ => return None,
    };
    Some(HostDevice {
        path: inside.to_path_buf(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_string(),
    })
}

fn collect(
    directory: &Path,
    inside: &Path,
    access: &str,
    found: &mut Vec<HostDevice>,
    depth: usize,
) -> Result<(), DeviceError> {
    if depth > DEEPEST {
        return Err(DeviceError::TooDeep { path: directory.to_path_buf() });
    }
    let read = |source| DeviceError::Read { path: directory.to_path_buf(), source };
    let mut entries = fs::read_dir(directory).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Devices come and go while they are listed.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let target = inside.join(entry.file_name());
        if metadata.is_dir() {
            collect(&entry.path(), &target, access, found, depth + 1)?;
        } else {
            found.extend(device(&metadata, &target, access));
        }
    }
    Ok(())
}

/// The node's own host name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Is there anything at this path of the node? Links are followed.
pub fn exists(path: &str) -> bool {
    fs::metadata(path).is_ok()
}

/// The kind of the file system that a path is on, as the mount table names it; `unknown` if that can't be told.
pub fn file_system(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mounts = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = Path::new(left.split(' ').nth(4)?);
        place.starts_with(point).then(|| (point.components().count(), right.split(' ').next()))
    });
    // Of two mounts at one place the later covers the earlier, and `max_by_key` gives the later.
    let deepest = mounts.max_by_key(|(depth, _)| *depth);
    deepest.and_then(|(_, kind)| kind).unwrap_or("unknown").to_string()
}

/// What a process does, as proc(5) has it: `S` sleeps, `T` is stopped, `D` waits for a device. None: it is gone.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The kernel function that a process sleeps in; empty if that can't be told.
pub fn wchan(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/wchan")).ok().filter(|name| name != "0").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_has_a_kernel_and_capabilities() {
        let host = Host::detect();
        assert!(host.kernel >= (5, 0), "{host:?}");
        assert!(!host.capabilities.is_empty() && !host.hostname.is_empty() && host.seccomp);
    }

    #[test]
    fn texts_of_the_kernel_are_understood() {
        assert_eq!(version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(version("weird"), (0, 0));
        assert_eq!(bounding("Name:\tx\nCapBnd:\t00000000000000ff\n").bits(), 0xff);
        assert!(bounding("").is_empty());
    }

    #[test]
    fn devices_are_found_by_file_and_by_directory() {
        let null = devices(Path::new("/dev/null"), Path::new("/dev/nothing"), "rw").unwrap();
        assert_eq!((null[0].major, null[0].minor, null[0].kind), (1, 3, DeviceKind::Char));
        assert_eq!((null[0].path.as_path(), null[0].access.as_str()), (Path::new("/dev/nothing"), "rw"));
        let all = devices(Path::new("/dev"), Path::new("/x"), "r").unwrap();
        assert!(all.iter().any(|device| device.path == Path::new("/x/zero")));
        assert!(all_devices().unwrap().iter().all(|device| device.path != Path::new("/dev/null")));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, text) in [
            (dir.path(), "is not a device"),
            (&file, "is not a device"),
            (&dir.path().join("none"), "cannot read"),
        ] {
            let error = devices(path, Path::new("/x"), "r").unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
