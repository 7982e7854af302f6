//! Joining the container's cgroups. Making them and their limits is the daemon's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::failure::{Failing, Result, SpawnError};

/// The cgroups to be joined, opened in the host's view.
pub(super) struct Membership {
    /// The `tasks` files of v1, written to by the new process itself.
    tasks: Vec<(String, OwnedFd)>,
    /// The directory of v2, entered at clone3.
    unified: Option<OwnedFd>,
}

impl Membership {
    pub(super) fn open(directories: &[String]) -> Result<Self> {
        let mut membership = Self { tasks: Vec::new(), unified: None };
        for path in directories {
            let step = || format!("open cgroup {path}");
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(path.as_str(), flags, Mode::empty()).failing(step)?;
            let tasks = OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(&directory, "tasks", tasks, Mode::empty()) {
                Ok(tasks) => membership.tasks.push((path.clone(), tasks)),
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

    /// The cgroup for clone3.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling process, which has one thread, into the cgroups of v1. Writing to `tasks` instead of
    /// `cgroup.procs` spares the wait for an RCU grace period: 50 us instead of 7 ms.
    pub(super) fn join(self) -> Result<()> {
        for (path, tasks) in &self.tasks {
            rustix::io::write(tasks, b"0").failing(|| format!("join cgroup {path}"))?;
        }
        Ok(())
    }
}
