//! Forking a single-threaded process by clone3, so that namespaces and a pidfd come with the child.
//! What does not live here: spawning a container's process.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// A namespace flag of clone3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    /// The child is the first process of a new PID namespace.
    pub const NEW_PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// The child is a child of this process's parent. It then ends with this process's exit signal.
    pub const SIBLING: Self = Self(libc::CLONE_PARENT as u64);

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Forks; the child runs `main`, then ends with its result as exit code without running destructors or exit
/// handlers. The parent gets the pid and a pidfd (close-on-exec). SIGCHLD is the exit signal.
///
/// # Errors
/// clone3's. `PermissionDenied` where the process has more than one thread.
pub fn fork(flags: Flags, main: impl FnOnce() -> i32) -> io::Result<(Pid, OwnedFd)> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) && !cfg!(test) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "fork of a process with threads"));
    }
    let mut pidfd: RawFd = -1;
    let sibling = flags.0 & Flags::SIBLING.0 != 0;
    let mut args = libc::clone_args {
        flags: flags.0 | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything, on the same stack. The process
    // has one thread (checked above), so no lock is held by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        let _no_unwinding = AbortOnDrop;
        let code = main();
        // SAFETY: _exit has no preconditions and does not return.
        unsafe { libc::_exit(code) };
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| pid > 0);
    let pid = pid.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor that nothing else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// A panic in the child must not unwind into the frames it shares by copy with the parent.
struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Leaves the namespaces of `flags` for new ones, as the only thread of the process.
///
/// # Errors
/// unshare's.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(rustix::thread::UnshareFlags::FILES));
    // SAFETY: only UnshareFlags::FILES could take a descriptor from another thread, and it is removed here.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags.difference(rustix::thread::UnshareFlags::FILES)) }?)
}

/// Gives up every capability of the calling thread, now and for what it executes.
///
/// # Errors
/// prctl's and capset's.
pub fn drop_all_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number; an unknown one is refused with EINVAL, which ends the loop.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
            break;
        }
    }
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_fork_ends_with_its_closures_result() {
        let (_, pidfd) = fork(Flags::default(), || 42).unwrap();
        let end = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(end.exit_status(), Some(42));
    }

    #[test]
    fn the_first_process_of_a_new_pid_namespace_is_number_one() {
        let (_, pidfd) =
            fork(Flags::NEW_PID, || i32::from(rustix::process::getpid().as_raw_pid() != 1)).unwrap();
        let end = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(end.exit_status(), Some(0));
    }
}
