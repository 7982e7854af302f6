//! Labels on files, for SELinux. What does not live here: which label, and labels of processes (the shim).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

const ATTRIBUTE: &CStr = c"security.selinux";
/// Trees that belong to the node: a volume must not take them from it.
const OF_THE_NODE: [&str; 17] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin",
    "/sys", "/tmp", "/usr", "/var", "/var/lib",
];

/// Whether the kernel has SELinux and a policy.
pub fn is_on() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Labels a file, or a directory with all in it on the same file system. Links are labelled and not followed. The top comes
/// last: where it has the label already, all has, for what is made later inherits it.
///
/// # Errors
/// The errno of the first file that can't be labelled. File systems without labels are left alone.
pub fn relabel(path: &Path, label: &str) -> io::Result<()> {
    let whole = std::fs::canonicalize(path)?;
    if OF_THE_NODE.iter().any(|place| whole == Path::new(place)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it belongs to the node itself"));
    }
    let top = rustix::fs::openat(CWD, &whole, LOOK, Mode::empty())?;
    let mut old = vec![0; 4096];
    let length = rustix::fs::getxattr(name(&top), ATTRIBUTE, old.as_mut_slice()).unwrap_or_default();
    if old[..length].strip_suffix(b"\0").unwrap_or(&old[..length]) == label.as_bytes() {
        return Ok(());
    }
    let device = rustix::fs::fstat(&top)?.st_dev;
    match relabel_all(&top, label, device, DEEPEST) {
        Err(Errno::OPNOTSUPP | Errno::ROFS) => Ok(()),
        result => Ok(result?),
    }
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Levels of directories; each takes a descriptor while what is in it is labelled.
const DEEPEST: usize = 256;

/// A name of what is open by path only, which no attribute can be set on.
fn name(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn relabel_all(file: &OwnedFd, label: &str, device: u64, levels: usize) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(file)?;
    if stat.st_dev != device {
        return Ok(());
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let below = levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for entry in Dir::new(rustix::fs::openat(file, ".", flags, Mode::empty())?)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::openat(file, entry.file_name(), LOOK, Mode::empty()) {
                // Files come and go while they are listed.
                Err(Errno::NOENT) => {}
                found => relabel_all(&found?, label, device, below)?,
            }
        }
    }
    rustix::fs::setxattr(name(file), ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label_of(path: &Path) -> Option<String> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(path, ATTRIBUTE, value.as_mut_slice()).ok()?;
        Some(String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_string())
    }

    /// The attribute can be set without SELinux, too, by root.
    #[test]
    fn a_volume_is_labelled_through_and_through_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        for file in [volume.join("a/b/file"), outside.clone()] {
            std::fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        relabel(&volume, label).unwrap();
        for path in ["", "a", "a/b", "a/b/file"] {
            assert_eq!(label_of(&volume.join(path)).as_deref(), Some(label), "{path}");
        }
        assert_eq!(label_of(&outside), None);
        // What is labelled is not gone through again.
        std::fs::write(volume.join("a/new"), "").unwrap();
        relabel(&volume, label).unwrap();
        assert_eq!(label_of(&volume.join("a/new")), None);
        relabel(&volume, "system_u:object_r:container_file_t:s0").unwrap();
        assert!(label_of(&volume.join("a/new")).is_some());
    }

    #[test]
    fn what_belongs_to_the_node_is_not_relabelled() {
        for path in ["/", "/etc", "/usr/", "/var/../etc"] {
            assert!(relabel(Path::new(path), "x").is_err(), "{path}");
        }
    }
}
