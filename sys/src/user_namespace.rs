//! A user namespace that nobody lives in: it holds the mapping of an ID-mapped mount. What does not live here: entering
//! one, and the namespaces of pods.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

/// One range of IDs, as a line of user_namespaces(7) "uid_map".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First ID inside.
    pub inside: u32,
    /// First ID outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Makes a user namespace with these mappings of users and groups; it lives as long as the descriptor. The caller may have
/// any number of threads.
///
/// # Errors
/// clone3's (ENOSPC: too many user namespaces; EPERM), or those of writing the maps: EINVAL for ranges that overlap, EPERM.
pub fn with_mappings(users: &[Range], groups: &[Range]) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    let directory = format!("/proc/{}", holder.pid);
    std::fs::write(format!("{directory}/uid_map"), lines(users))?;
    std::fs::write(format!("{directory}/gid_map"), lines(groups))?;
    Ok(File::open(format!("{directory}/ns/user"))?.into())
}

fn lines(ranges: &[Range]) -> String {
    ranges.iter().fold(String::new(), |mut text, range| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
        text
    })
}

/// A process that waits in the namespace until it is killed, at the latest when the thread that made it ends.
struct Holder {
    pid: i64,
    pidfd: OwnedFd,
}

impl Holder {
    fn start() -> io::Result<Self> {
        let mut pidfd: RawFd = -1;
        let mut arguments = libc::clone_args {
            flags: (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64,
            pidfd: &raw mut pidfd as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: libc::SIGCHLD as u64,
            stack: 0,
            stack_size: 0,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: 0,
        };
        // SAFETY: without CLONE_VM this is a fork on a copy of this stack. The caller may have other threads, so the child
        // may find locks taken for ever: it makes three system calls, takes no lock and never returns (below).
        let pid =
            unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => wait_to_be_killed(),
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor that nothing else owns.
            pid => Ok(Self { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        }
    }
}

fn wait_to_be_killed() -> ! {
    // SAFETY: raw system calls that touch no memory, are async-signal-safe, and leave this process to its end.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        loop {
            libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It cannot have ended by itself, and nobody else waits for it; should either fail, there is nothing to do.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ =
            rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_without_processes_maps_the_owners_of_a_mount() {
        use std::os::unix::fs::MetadataExt;
        let range = [Range { inside: 0, outside: 70_000, count: 10 }];
        let namespace = with_mappings(&range, &range).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE;
        let tree = rustix::mount::open_tree(rustix::fs::CWD, directory.path(), flags).unwrap();
        let id_map = Some(namespace.as_fd());
        let attributes = crate::mount::Attributes { id_map, ..Default::default() };
        crate::mount::set_attributes(tree.as_fd(), false, &attributes).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tree));
        assert_eq!(std::fs::metadata(path).unwrap().uid(), 70_000);
    }

    #[test]
    fn a_mapping_that_the_kernel_refuses_is_an_error() {
        let twice = [Range { inside: 0, outside: 70_000, count: 10 }; 2];
        assert_eq!(with_mappings(&twice, &twice).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
