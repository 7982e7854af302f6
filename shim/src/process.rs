//! Containers as the shim holds them. Their streams live in stdio.rs, processes executed in them in executed.rs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_proto::shim::v1;
use rustix::process::{Pid, Signal};

use crate::attach::Client;
use crate::event_loop::Key;
use crate::failure::Failure;
use crate::log::{Log, Stream};

/// A source of a container's output.
pub struct Output {
    pub stream: Stream,
    pub fd: OwnedFd,
    /// None while a client is behind.
    pub key: Option<Key>,
}

/// The way to a container's stdin, with what it could not take yet.
pub struct Stdin {
    pub fd: OwnedFd,
    pub pending: Vec<u8>,
    pub key: Option<Key>,
    /// Close it when the first client's input ends.
    pub once: bool,
    pub closing: bool,
}

/// Where a container is in its life.
pub enum Life {
    Running { pidfd: Option<OwnedFd> },
    Exited(v1::Exited),
}

/// A container that was started and is not deleted.
pub struct Container {
    pub pid: Pid,
    pub started_at: i64,
    pub life: Life,
    pub exit_path: PathBuf,
    pub log: Log,
    pub outputs: Vec<Output>,
    pub stdin: Option<Stdin>,
    /// The terminal's master, and its other side, held so that output has no end while the container runs.
    pub terminal: Option<Terminal>,
    pub clients: Vec<Client>,
}

/// A container's terminal.
pub struct Terminal {
    pub master: OwnedFd,
    pub peer: Option<OwnedFd>,
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self.life, Life::Running { .. })
    }

    /// What State tells of it.
    pub fn describe(&self, id: &str) -> v1::state::Container {
        let exited = match &self.life {
            Life::Running { .. } => None,
            Life::Exited(exited) => Some(exited.clone()),
        };
        v1::state::Container {
            container_id: id.to_owned(),
            pid: self.pid.as_raw_pid(),
            running: exited.is_none(),
            exited,
            started_at: self.started_at,
        }
    }

    /// Sends a signal to the first process; `SRCH` where it has exited.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        match &self.life {
            Life::Running { pidfd: Some(pidfd) } => rustix::process::pidfd_send_signal(pidfd.as_fd(), signal),
            // Not reaped, so the number is still this process's.
            Life::Running { pidfd: None } => rustix::process::kill_process(self.pid, signal),
            Life::Exited(_) => Err(rustix::io::Errno::SRCH),
        }
    }
}

/// A signal by number: 1 to 64.
pub fn parse_signal(number: i32) -> Result<Signal, Failure> {
    let known = Signal::from_named_raw(number);
    let realtime = || berth_sys::inherit::realtime_signal(number);
    known.or_else(realtime).ok_or_else(|| {
        Failure::refused(
            "signal",
            rustix::io::Errno::INVAL,
            format!("{number} is not the number of a signal"),
        )
    })
}
