//! Owner, mode, extended attributes and times of one entry. What does not live here: making it.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::error::LayerError;
use super::super::tar::{Entry, Kind};

/// What an entry says beside its data.
pub struct Attributes<'a>(pub &'a Entry);

impl Attributes<'_> {
    /// On an open file or directory. A change of owner clears setuid and capabilities, so it comes first; times last.
    pub fn set_on(&self, fd: BorrowedFd<'_>) -> Result<(), LayerError> {
        let entry = self.0;
        let (uid, gid) = self.owner();
        rustix::fs::fchown(fd, uid, gid).map_err(LayerError::apply("change the owner of", &entry.path))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
            .map_err(LayerError::apply("change the mode of", &entry.path))?;
        for (name, value) in self.xattrs() {
            accept(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
                .map_err(LayerError::apply("set an extended attribute of", &entry.path))?;
        }
        if entry.kind == Kind::Directory {
            return Ok(());
        }
        set_time(fd, entry.mtime).map_err(LayerError::apply("set the times of", &entry.path))
    }

    /// On a link or node just made, which cannot be opened.
    pub fn set_at(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), LayerError> {
        let entry = self.0;
        let (uid, gid) = self.owner();
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(LayerError::apply("change the owner of", &entry.path))?;
        if entry.kind != Kind::Symlink {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(LayerError::apply("change the mode of", &entry.path))?;
        }
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
        for (attribute, value) in self.xattrs() {
            match rustix::fs::lsetxattr(path.as_slice(), attribute, value, XattrFlags::empty()) {
                // user.* exists on files and directories only.
                Err(Errno::PERM) => {}
                result => {
                    accept(result).map_err(LayerError::apply("set an extended attribute of", &entry.path))?
                }
            }
        }
        rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(LayerError::apply("set the times of", &entry.path))
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.0.uid)), Some(Gid::from_raw(self.0.gid)))
    }

    fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all = self.0.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        all.filter(|(name, _)| is_images(name))
    }
}

/// Attributes that an image may bring. Labels of the host's security modules, and marks that would tell overlay where
/// to look, are not among them.
pub fn is_images(name: &[u8]) -> bool {
    let plain = name.starts_with(b"user.") || name.starts_with(b"trusted.");
    let overlay = name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.");
    plain && !overlay
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// A file system without this attribute is no reason to refuse the image.
fn accept(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Sets the time of modification alone.
pub fn set_time(fd: BorrowedFd<'_>, mtime: (i64, u32)) -> Result<(), Errno> {
    rustix::fs::futimens(fd, &times(mtime))
}

/// The time of modification alone, as system calls take it.
pub fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}
