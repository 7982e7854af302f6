//! Executing a shim: its program sealed in memory (so that no container can write to it through /proc/PID/exe, see
//! CVE-2019-5736), its socket bound before it runs, its end reaped.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::stat::Mode;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use tracing::Instrument;

use super::ShimError;
use crate::drivers::descriptors;
use crate::drivers::watched::watched;
use crate::ids::PodId;
use crate::layout::Layout;

/// The fd at which the shim finds its listening socket.
const LISTENER: i32 = 3;

/// Copies the shim's program into a sealed memfd.
pub(super) fn load_program(configured: Option<PathBuf>) -> Result<OwnedFd, ShimError> {
    let path = program_path(configured).map_err(ShimError::io("find the directory of", "/proc/self/exe"))?;
    let seal = || -> io::Result<OwnedFd> {
        let program = std::fs::read(&path)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("berth-shim", flags)?);
        file.write_all(&program)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        // Above the numbers that a starting shim's own descriptors take.
        Ok(rustix::io::fcntl_dupfd_cloexec(&file, LISTENER + 1)?)
    };
    seal().map_err(ShimError::io("load the shim's program", &path))
}

/// Where the shim's program is, or should be.
pub fn program_path(configured: Option<PathBuf>) -> io::Result<PathBuf> {
    // The environment is for tests and for `make run`, where the two programs lie in different directories.
    match configured.or_else(|| std::env::var_os("BERTH_SHIM").map(PathBuf::from)) {
        Some(path) => Ok(path),
        None => Ok(std::env::current_exe()?.with_file_name("berth-shim")),
    }
}

/// Starts the shim of a pod and returns a connection to it.
pub(super) fn spawn(layout: &Layout, program: BorrowedFd<'_>, pod: &PodId) -> Result<OwnedFd, ShimError> {
    let dir = layout.shim(pod);
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(ShimError::io("make", &dir))?;
    let path = layout.shim_socket(pod);
    let listener = berth_sys::socket::listen(&path).map_err(ShimError::io("listen at", &path))?;
    let pid = execute(program, listener.as_fd(), pod, &layout.shim_log(pod))
        .map_err(ShimError::io("execute the shim for", &dir))?;
    descriptors::restore(pid);
    reap(pid).map_err(ShimError::io("watch the shim of", &dir))?;
    // The connection waits in the listener's queue until the shim accepts it.
    berth_sys::socket::connect(&path).map_err(ShimError::io("connect to", path))
}

fn execute(program: BorrowedFd<'_>, listener: BorrowedFd<'_>, pod: &PodId, log: &Path) -> io::Result<Pid> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(listener.as_raw_fd(), LISTENER)?;
    actions.add_open(0, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    actions.add_dup2(0, 1)?;
    actions.add_open(
        2,
        log,
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND,
        Mode::from_bits_truncate(0o600),
    )?;
    let attributes = PosixSpawnAttr::init()?;
    let arguments = [c"berth-shim".to_owned(), c"--pod".to_owned(), CString::new(pod.as_str())?];
    // Not inherited: nothing of the daemon's environment is the pod's business.
    let environment: [CString; 0] = [];
    // glibc spawns by CLONE_VFORK, so the daemon's size does not matter. The path is resolved in the child, where the
    // memfd is still open: close-on-exec acts after.
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let pid = posix_spawn(path.as_str(), &actions, &attributes, &arguments, &environment)?;
    Pid::from_raw(pid.as_raw()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Waits for the end of a shim that this daemon has started, so that it leaves no zombie.
fn reap(pid: Pid) -> io::Result<()> {
    let pidfd = watched(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
    let wait = async move {
        if pidfd.readable().await.is_ok() {
            let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            tracing::debug!(?status, "the shim has ended");
        }
    };
    tokio::spawn(wait.in_current_span());
    Ok(())
}
