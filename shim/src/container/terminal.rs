//! The terminal of a process: a pair made in the container's own devpts, and /dev/console.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::path::Root;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::failure::{Failing, Result, SpawnError};
use super::filesystem::attach;
use super::mounts::real_directory;
use super::sources::clone_of;
use super::spec::ConsoleSize;

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A pseudo terminal.
pub(super) struct Terminal {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// Opens a terminal in the devpts of `root`, and nowhere else.
pub(super) fn open(root: &Root, size: Option<ConsoleSize>) -> Result<Terminal> {
    let step = || "open a terminal in the container's /dev/pts".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    // By the location first: a decoy may be a device whose opening has an effect.
    let place = root.open_without_links(Path::new("dev/pts/ptmx"), OFlags::PATH).failing(step)?;
    let stat = rustix::fs::fstat(&place).failing(step)?;
    let magic = rustix::fs::fstatfs(&place).failing(step)?.f_type.cast_unsigned();
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if magic != DEVPTS_MAGIC || !character || stat.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(SpawnError::refused(step(), "the container's /dev/pts/ptmx is not that of a devpts"));
    }
    let master = root.open_without_links(Path::new("dev/pts/ptmx"), flags).failing(step)?;
    let opened = rustix::fs::fstat(&master).failing(step)?;
    if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(SpawnError::refused(step(), "the container's /dev/pts/ptmx was exchanged"));
    }
    rustix::pty::unlockpt(&master).failing(step)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).failing(step)?;
    if let Some(size) = size {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).failing(step)?;
    }
    Ok(Terminal { master, peer })
}

/// Lays the terminal over /dev/console, by descriptor; a link there is refused.
pub(super) fn bind_console(root: &Root, terminal: &Terminal) -> Result<()> {
    let step = || "bind the terminal on /dev/console".to_owned();
    let dev = real_directory(root, Path::new("dev"))?;
    let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match rustix::fs::openat(&dev, "console", make, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).failing(step),
    }
    let target = root.open_without_links(Path::new("dev/console"), OFlags::PATH).failing(step)?;
    let tree = clone_of(terminal.peer.as_fd(), false).failing(step)?;
    attach(tree.as_fd(), target.as_fd()).failing(step)
}
