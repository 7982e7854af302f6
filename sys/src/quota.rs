//! Project quotas: which project a directory's files count for (ioctl_fsgetxattr in <linux/fs.h>), and what a project has
//! and may have (quotactl(2)). What does not live here: which projects there are.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Of a file system's project quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// It counts.
    pub counts: bool,
    /// It refuses what is above a limit.
    pub enforces: bool,
}

/// What a project has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes allocated.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// `struct fsxattr`
#[repr(C)]
#[derive(Default)]
struct Attributes {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

mod ioctl {
    nix::ioctl_read!(get, b'X', 31, super::Attributes);
    nix::ioctl_write_ptr!(set, b'X', 32, super::Attributes);
}

/// What is made in such a directory belongs to its project.
const INHERIT: u32 = 0x200;
const PROJECTS: i32 = 2;
const GET_STATE: i32 = 0x5805;
/// `struct fs_quota_stat` is smaller than this; its flags are the second 16 bits.
const STATE: usize = 128;
const COUNTS: u16 = 1 << 4;
const ENFORCES: u16 = 1 << 5;

/// The project that a file or directory counts for; 0: none.
pub fn project(file: impl AsFd) -> io::Result<u32> {
    Ok(attributes(&file)?.project)
}

/// Counts a directory, and what will be made below it, for a project.
pub fn set_project(directory: impl AsFd, project: u32) -> io::Result<()> {
    let mut attributes = attributes(&directory)?;
    attributes.project = project;
    attributes.xflags |= INHERIT;
    // SAFETY: the descriptor is open, and the kernel reads one `struct fsxattr` from a reference that is alive.
    unsafe { ioctl::set(directory.as_fd().as_raw_fd(), &raw const attributes) }?;
    Ok(())
}

fn attributes(file: &impl AsFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is open, and the kernel writes one `struct fsxattr` to a reference that is alive.
    unsafe { ioctl::get(file.as_fd().as_raw_fd(), &raw mut attributes) }?;
    Ok(attributes)
}

/// Of the file system that a file is on. An error: it has no quotas at all.
pub fn state(file: impl AsFd) -> io::Result<State> {
    let mut state = [0_u8; STATE];
    control(&file, GET_STATE, 0, state.as_mut_ptr().cast())?;
    let flags = u16::from_ne_bytes([state[2], state[3]]);
    Ok(State { counts: flags & COUNTS != 0, enforces: flags & ENFORCES != 0 })
}

/// What a project has.
pub fn usage(file: impl AsFd, project: u32) -> io::Result<Usage> {
    let quota = quota(&file, project)?;
    Ok(Usage { bytes: quota.dqb_curspace, inodes: quota.dqb_curinodes })
}

/// The most bytes that a project may have, in KiB; none without.
pub fn limit(file: impl AsFd, project: u32, kib: Option<u64>) -> io::Result<()> {
    // SAFETY: `struct if_dqblk` is plain numbers, for which zero is a value.
    let mut quota: libc::dqblk = unsafe { std::mem::zeroed() };
    quota.dqb_bhardlimit = kib.unwrap_or(0);
    quota.dqb_bsoftlimit = quota.dqb_bhardlimit;
    quota.dqb_valid = libc::QIF_BLIMITS;
    control(&file, libc::Q_SETQUOTA, project, (&raw mut quota).cast())
}

fn quota(file: &impl AsFd, project: u32) -> io::Result<libc::dqblk> {
    // SAFETY: as above.
    let mut quota: libc::dqblk = unsafe { std::mem::zeroed() };
    const { assert!(size_of::<libc::dqblk>() <= STATE) };
    match control(file, libc::Q_GETQUOTA, project, (&raw mut quota).cast()) {
        // XFS knows no project before something counts for it.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(quota),
        done => done.map(|()| quota),
    }
}

/// `memory` is what the command takes: `struct if_dqblk`, or `STATE` bytes.
fn control(file: &impl AsFd, command: i32, project: u32, memory: *mut libc::c_void) -> io::Result<()> {
    let command = (command << 8) | PROJECTS;
    // SAFETY: the descriptor is open; both callers' memory is alive, writable, and as large as the command's structure.
    let done =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_fd().as_raw_fd(), command, project, memory) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_quotas_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(state(&proc).is_err() && usage(&proc, 1).is_err() && limit(&proc, 1, Some(1)).is_err());
        assert!(project(&proc).is_err());
    }
}
