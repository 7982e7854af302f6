//! Joining the container's cgroups. Making them and their limits is the daemon's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::failure::{Failing, Result, SpawnError};

/// The cgroups to be joined, opened in the host's view.
pub(super) struct Membership {
    /// Files that the new process writes itself to: `tasks` of v1, `cgroup.procs` of v2 where clone3 can't be asked.
    files: Vec<(String, OwnedFd)>,
    /// The directory of v2, entered at clone3.
    unified: Option<OwnedFd>,
}

impl Membership {
    /// `from_user_namespace`: root of another user namespace than the host's will clone. For clone3 it may not enter the
    /// host's cgroups (EACCES), while a file that is open stays so; it costs the wait that `join` tells of.
    pub(super) fn open(directories: &[String], from_user_namespace: bool) -> Result<Self> {
        let mut membership = Self { files: Vec::new(), unified: None };
        for path in directories {
            let step = || format!("open cgroup {path}");
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(path.as_str(), flags, Mode::empty()).failing(step)?;
            let open = |name: &str| {
                rustix::fs::openat(&directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            };
            match open("tasks") {
                Ok(tasks) => membership.files.push((path.clone(), tasks)),
                Err(Errno::NOENT) if from_user_namespace => {
                    membership.files.push((path.clone(), open("cgroup.procs").failing(step)?));
                }
                Err(Errno::NOENT) if membership.unified.is_none() => membership.unified = Some(directory),
                Err(Errno::NOENT) => {
                    return Err(SpawnError::refused(
                        step(),
                        format!("{path} is a second cgroup of version 2"),
                    ));
                }
                Err(error) => return Err(error).failing(step),
            }
        }
        Ok(membership)
    }

    /// The cgroup for clone3, if that is to enter one.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process, which has one thread, into the cgroups that clone3 did not enter. On v1 writing to
    /// `tasks` instead of `cgroup.procs` spares the wait for an RCU grace period: 50 us instead of 7 ms.
    pub(super) fn join(self) -> Result<()> {
        for (path, file) in &self.files {
            rustix::io::write(file, b"0").failing(|| format!("join cgroup {path}"))?;
        }
        Ok(())
    }
}
