//! Attributes of the calling process that rustix and nix do not reach: fd ranges, signal dispositions, keyring, exit.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range(2) takes three numbers and touches no memory of ours. What closing may break is named at
    // the callers below.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from 3 on to be closed by the next execve(2).
///
/// # Errors
/// The errno of close_range(2).
pub fn close_on_execute() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from 3 on that `kept` does not name. For a forked child that never returns to its
/// parent's code: objects that own the closed descriptors must not be used or dropped any more.
///
/// # Errors
/// The errno of close_range(2).
pub fn keep_only(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> =
        kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).filter(|fd| *fd > 2).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            close_range(first, number - 1, 0)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Gives every signal its default action and unblocks all: what an executed program expects to find.
pub fn reset_signals() {
    // The kernel's sigaction, on every architecture at most four words: all zero is SIG_DFL without flags.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` outlives the call and installs no code; the old action is not asked for. By the raw call,
        // because libc refuses the two signals that it keeps for itself. SIGKILL and SIGSTOP are refused, which is right.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8_usize,
            );
        };
    }
    unblock_signals();
}

/// Lets this thread, and those that it makes, be told every signal: a parent may have blocked some and passed that on.
pub fn unblock_signals() {
    let none = nix::sys::signal::SigSet::empty();
    // With a valid set and action sigprocmask(2) cannot fail.
    let _ = nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&none), None);
}

/// Leaves the inherited session keyring for a fresh one.
///
/// # Errors
/// The errno of keyctl(2): ENOSYS in a kernel without keyrings, EDQUOT, EPERM.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing of ours is touched.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends a forked child at once: no handler and no destructor of its parent's program runs.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and runs none of our code.
    unsafe { libc::_exit(code) }
}
