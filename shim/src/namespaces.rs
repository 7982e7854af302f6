//! The pod's namespaces, in which the shim lives from Setup on. With a user namespace, the others are made inside it by
//! a short-lived fork, so that it owns them, and the shim enters them from outside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_proto::shim::v1;
use berth_sys::{fork, socket};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::failure::Failure;
use crate::init;

/// The namespaces that a pod may have of its own, with their names below /proc/PID/ns.
const KINDS: [(UnshareFlags, &str); 3] =
    [(UnshareFlags::NEWNET, "net"), (UnshareFlags::NEWIPC, "ipc"), (UnshareFlags::NEWUTS, "uts")];

/// The namespaces that Setup asks for.
pub fn wanted(setup: &v1::Setup) -> UnshareFlags {
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET, setup.new_network);
    flags.set(UnshareFlags::NEWIPC, setup.new_ipc);
    flags.set(UnshareFlags::NEWUTS, setup.new_uts);
    flags
}

/// Makes new namespaces and enters them.
pub fn enter_new(flags: UnshareFlags) -> Result<(), Failure> {
    fork::unshare(flags).map_err(|error| Failure::io("make namespaces", describe(flags), error))
}

/// Makes a user namespace with the maps, and `flags` owned by it; enters all but the user namespace, which it
/// returns.
pub fn enter_owned(setup: &v1::Setup, flags: UnshareFlags) -> Result<OwnedFd, Failure> {
    let fail = |error: std::io::Error| Failure::io("make user namespace", "of the pod", error);
    let (ours, theirs) = socket::pair().map_err(fail)?;
    let (pid, holder) = fork::fork(fork::Flags::default(), || hold(theirs.as_fd(), flags)).map_err(fail)?;
    drop(theirs);
    let entered = converse(&ours, pid, setup, flags);
    drop(ours);
    reap(&holder);
    entered
}

/// In the fork: makes the user namespace, waits for its maps, makes the others and sends them.
fn hold(socket: BorrowedFd<'_>, flags: UnshareFlags) -> i32 {
    let work = || -> std::io::Result<()> {
        fork::unshare(UnshareFlags::NEWUSER)?;
        socket::send(socket, b"made", &[])?;
        if socket::recv(socket, &mut [0; 8])?.len == 0 {
            return Err(Errno::PIPE.into());
        }
        fork::unshare(flags)?;
        let mut fds = vec![open_namespace("user")?];
        for (flag, name) in KINDS {
            if flags.contains(flag) {
                fds.push(open_namespace(name)?);
            }
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        socket::send(socket, b"done", &fds)
    };
    let code = work().err().map_or(0, |error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
    if code != 0 {
        // Should this fail too, the end of file tells it.
        let _ = socket::send(socket, &code.to_ne_bytes(), &[]);
    }
    code
}

fn converse(
    socket: &OwnedFd,
    holder: Pid,
    setup: &v1::Setup,
    flags: UnshareFlags,
) -> Result<OwnedFd, Failure> {
    let fail = |error: std::io::Error| Failure::io("make user namespace", "of the pod", error);
    answer(socket, b"made").map_err(fail)?;
    for (file, maps) in [("uid_map", &setup.uid_mappings), ("gid_map", &setup.gid_mappings)] {
        let lines: String =
            maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.length)).collect();
        std::fs::write(format!("/proc/{}/{file}", holder.as_raw_pid()), &lines)
            .map_err(|error| Failure::io("write", format!("{file} ({})", lines.trim_end()), error))?;
    }
    socket::send(socket.as_fd(), b"go", &[]).map_err(fail)?;
    let mut fds = answer(socket, b"done").map_err(fail)?.into_iter();
    let user = fds.next().ok_or_else(|| fail(Errno::BADF.into()))?;
    for (namespace, (_, name)) in fds.zip(KINDS.iter().filter(|(flag, _)| flags.contains(*flag))) {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None)
            .map_err(|error| Failure::io("enter", format!("{name} namespace of the pod"), error))?;
    }
    Ok(user)
}

/// The fork's packet; anything but `expected` is its errno.
fn answer(socket: &OwnedFd, expected: &[u8; 4]) -> std::io::Result<Vec<OwnedFd>> {
    let mut bytes = [0; 4];
    let packet = socket::recv(socket.as_fd(), &mut bytes)?;
    match packet.len {
        4 if bytes == *expected => Ok(packet.fds),
        4 => Err(std::io::Error::from_raw_os_error(i32::from_ne_bytes(bytes))),
        _ => Err(Errno::PIPE.into()),
    }
}

/// A namespace of the calling process, for others to enter.
pub fn open_namespace(name: &str) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(format!("/proc/self/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Starts the init of a new PID namespace, owned by the pod's user namespace where there is one.
pub fn start_init(user: Option<BorrowedFd<'_>>) -> Result<(Pid, OwnedFd), Failure> {
    let fail = |error: std::io::Error| Failure::io("start init", "of the pod's PID namespace", error);
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
    let (pid, pidfd) = match user {
        None => fork::fork(fork::Flags::NEW_PID, || init::run(write.as_fd())).map_err(fail)?,
        Some(user) => fork_inside(user, write.as_fd()).map_err(fail)?,
    };
    drop(write);
    let mut code = [0; 4];
    let told =
        rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut code[..])).map_err(|e| fail(e.into()))?;
    match (told, i32::from_ne_bytes(code)) {
        (4, 0) => Ok((pid, pidfd)),
        (4, errno) => Err(fail(std::io::Error::from_raw_os_error(errno))),
        _ => Err(fail(Errno::SRCH.into())),
    }
}

/// The init, forked as a child of the shim by a fork that has entered the user namespace.
fn fork_inside(user: BorrowedFd<'_>, ready: BorrowedFd<'_>) -> std::io::Result<(Pid, OwnedFd)> {
    let (ours, theirs) = socket::pair()?;
    let (_, helper) = fork::fork(fork::Flags::default(), || {
        let work = || -> std::io::Result<()> {
            rustix::thread::move_into_link_name_space(user, Some(LinkNameSpaceType::User))?;
            nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
            nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
            let flags = fork::Flags::NEW_PID.and(fork::Flags::SIBLING);
            let (pid, pidfd) = fork::fork(flags, || init::run(ready))?;
            socket::send(theirs.as_fd(), &pid.as_raw_pid().to_ne_bytes(), &[pidfd.as_fd()])
        };
        work().err().map_or(0, |error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
    })?;
    drop(theirs);
    let mut pid = [0; 4];
    let packet = socket::recv(ours.as_fd(), &mut pid);
    let code = reap(&helper);
    let mut packet = packet?;
    match (packet.len, Pid::from_raw(i32::from_ne_bytes(pid)), packet.fds.pop()) {
        (4, Some(pid), Some(pidfd)) => Ok((pid, pidfd)),
        _ => Err(std::io::Error::from_raw_os_error(code)),
    }
}

/// Waits for a helper that is about to end; its exit code.
fn reap(helper: &OwnedFd) -> i32 {
    let end = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED)
    });
    end.ok().flatten().and_then(|status| status.exit_status()).unwrap_or(Errno::SRCH.raw_os_error())
}

fn describe(flags: UnshareFlags) -> String {
    let names: Vec<_> =
        KINDS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
    format!("({})", names.join(", "))
}
