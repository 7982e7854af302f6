//! What a process inherits: descriptors by number, signal dispositions and the signal mask.
//! What does not live here: the descriptors' meaning.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes the descriptor that the parent left at `number`, close-on-exec from now on.
///
/// # Errors
/// `EBADF` where it is not open.
///
/// # Panics
/// Never; calling it twice for one number is refused with `AlreadyExists`.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let bit = u32::try_from(number).ok().and_then(|n| 1_u64.checked_shl(n));
    let Some(bit) = bit.filter(|_| number > 2) else {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    };
    // SAFETY: fcntl with F_SETFD touches no memory; a number that is not open is EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: the number is open and was inherited; TAKEN sees to it that it is given out once, and callers call
    // this before they open anything, so nothing else in the process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. Call it before anything owns one of them, or in a fork that will
/// never use or drop what its parent owned.
///
/// # Errors
/// close_range's.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes no memory. Callers uphold that no owner of these numbers is used afterwards.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets SIGCHLD to be ignored: the kernel then reaps every child by itself.
pub fn ignore_children() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Makes a write to a closed pipe fail with EPIPE instead of ending the process. A handler that does nothing, not
/// SIG_IGN: execve sets handlers back to the default, so what this process executes is not affected.
pub fn survive_broken_pipes() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, so it is safe in any context; an all-zero sigaction is valid.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPIPE, &raw const action, std::ptr::null_mut());
    }
}

/// A realtime signal by its number, to be sent; `None` outside of 34..=64.
pub fn realtime_signal(number: i32) -> Option<rustix::process::Signal> {
    // SAFETY: the kernel takes any of these numbers; libc reserves 32 and 33 for itself, which are not let through.
    (34..=64).contains(&number).then(|| unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
