//! Paths that the container must not see or must not write: masked and read-only paths.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::path::Root;

use super::failure::{Failing, Result, SpawnError};
use super::filesystem::{attach, make};
use super::mounts::is_directory;
use super::options::Options;
use super::sources::{self, clone_of};

/// A mount laid over many paths: attached once, then cloned from where it is.
struct Cover {
    mount: OwnedFd,
    used: bool,
}

impl Cover {
    fn lay(&mut self, target: BorrowedFd<'_>) -> io::Result<()> {
        if self.used {
            let copy = clone_of(self.mount.as_fd(), false)?;
            return Ok(attach(copy.as_fd(), target)?);
        }
        self.used = true;
        Ok(attach(self.mount.as_fd(), target)?)
    }
}

/// Hides directories under an empty read-only tmpfs and other files under `null`; paths that do not exist are skipped.
pub(super) fn hide(root: &Root, paths: &[PathBuf], null: Option<OwnedFd>) -> Result<()> {
    let mut file = null.map(|mount| Cover { mount, used: false });
    let mut directory: Option<Cover> = None;
    for path in paths {
        let step = || format!("mask {}", path.display());
        let Some(target) = existing(root, path, step)? else {
            continue;
        };
        if is_directory(target.as_fd()).failing(step)? {
            let cover = match &mut directory {
                Some(cover) => cover,
                None => directory.insert(Cover { mount: empty(path)?, used: false }),
            };
            cover.lay(target.as_fd()).failing(step)?;
        } else {
            let missing = || SpawnError::refused(step(), "the host's /dev/null was not opened");
            file.as_mut().ok_or_else(missing)?.lay(target.as_fd()).failing(step)?;
        }
    }
    Ok(())
}

fn empty(path: &Path) -> Result<OwnedFd> {
    let options = ["ro", "nosuid", "nodev", "noexec", "nr_blocks=1", "nr_inodes=1"].map(str::to_owned);
    make("tmpfs", Path::new("tmpfs"), &Options::parse(&options), path)
}

/// Makes each path, with what is mounted beneath it, read-only; paths that do not exist are skipped.
pub(super) fn make_read_only(root: &Root, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let step = || format!("make {} read-only", path.display());
        let Some(target) = existing(root, path, step)? else {
            continue;
        };
        let copy = clone_of(target.as_fd(), true).failing(step)?;
        sources::make_read_only(copy.as_fd(), true).failing(step)?;
        attach(copy.as_fd(), target.as_fd()).failing(step)?;
    }
    Ok(())
}

fn existing(root: &Root, path: &Path, step: impl Fn() -> String) -> Result<Option<OwnedFd>> {
    match root.open_path(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).failing(step),
    }
}
