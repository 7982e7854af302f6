//! New processes: fork and clone3. Not threads, and nothing that shares memory with the caller.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Pid};

/// `CLONE_INTO_CGROUP` of linux/sched.h: above 32 bits, hence not in `CloneFlags`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// On which side of a fork the code runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the caller: the new process's pid, as the caller's PID namespace numbers it.
    Parent(Pid),
    /// In the new process.
    Child,
}

/// Forks the calling process, which must have one thread only: another thread's locks would stay locked in the child.
///
/// # Errors
/// The errno of fork(2): EAGAIN at a limit of processes, ENOMEM.
pub fn fork() -> io::Result<Side> {
    // SAFETY: the callers are single-threaded (the shim has one thread), so that no lock of the allocator or of
    // std is held by a thread which does not exist in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Forks by clone3(2) into new namespaces and, on cgroup v2, straight into `cgroup` (an open cgroup directory).
/// As with [`fork`], the caller must have one thread only. With `CLONE_PARENT` the new process is a sibling of the caller.
///
/// # Errors
/// The errno of clone3(2). Flags that share memory or threads are refused with EINVAL.
pub fn clone3(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let sharing =
        CloneFlags::CLONE_VM | CloneFlags::CLONE_THREAD | CloneFlags::CLONE_SIGHAND | CloneFlags::CLONE_VFORK;
    if flags.intersects(sharing) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut bits = u64::from(flags.bits().cast_unsigned());
    let mut group = 0;
    if let Some(cgroup) = cgroup {
        bits |= CLONE_INTO_CGROUP;
        group = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // With CLONE_PARENT the kernel takes the caller's own exit signal and refuses another.
    let sibling = flags.contains(CloneFlags::CLONE_PARENT);
    let exit_signal = if sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) };
    let arguments = libc::clone_args {
        flags: bits,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group,
    };
    // SAFETY: `arguments` is a whole clone_args that outlives the call; without CLONE_VM and with no stack given the
    // child goes on with a copy of this stack, as after fork(2), in a process that has this one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?))),
    }
}
