//! `berth-shim --pod ID`: the parent of all containers of one pod. The daemon leaves it a listening SOCK_SEQPACKET
//! socket as descriptor 3, /dev/null as 0 and 1, and a log file as 2.
//! What lives here: becoming that process. What it then does lives in server.rs.

mod attach;
mod connection;
mod container;
mod event_loop;
mod executed;
mod exit;
mod failure;
mod init;
mod log;
mod loopback;
mod namespaces;
mod process;
mod requests;
mod server;
mod setup;
mod spawn;
mod stdio;
mod sysctl;
mod typing;
mod watching;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use berth_sys::{inherit, socket};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;
use rustix::process::DumpableBehavior;

const LISTENER: i32 = 3;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some("--pod"), Some(pod_id), None) = (args.next().as_deref(), args.next(), args.next()) else {
        eprintln!("usage: berth-shim --pod ID, with a listening SOCK_SEQPACKET socket as descriptor 3");
        return ExitCode::from(2);
    };
    match settle_down().and_then(|(listener, signals)| server::Shim::new(pod_id, listener, signals)?.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves everything behind that came from the parent by accident: session, descriptors, directory, umask, signals.
fn settle_down() -> io::Result<(OwnedFd, SignalFd)> {
    let listener = inherit::take(LISTENER)?;
    if !socket::is_listener(listener.as_fd()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptor 3 is no listening SOCK_SEQPACKET socket",
        ));
    }
    inherit::close_from(LISTENER.unsigned_abs() + 1)?;
    berth_sys::process::reset_signals();
    inherit::survive_broken_pipes();
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    // What the shim executes resets this mask; see container/workload.rs.
    children.thread_block()?;
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    if let Err(error) = rustix::process::setsid() {
        // Already a leader: the daemon made the session.
        eprintln!("berth-shim: setsid: {error}");
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir("/")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok((listener, signals))
}
