//! A spawn as the shim sees it: one fork, then packets until the workload executes. What the fork does lives in
//! `builder` and `join`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::clone::{Side, fork};
use berth_sys::process::exit_now;
use nix::unistd::Pid;

use super::failure::{Failing, Result, SpawnError};
use super::status::{self, Packet, Received, Receiver, Reporter};

/// A spawn under way. Call [`Spawning::next`] when [`Spawning::as_fd`] is readable, until it gives `Executing` or
/// `Failed`. Whoever owns it reaps `builder`, and the spawned process, whatever becomes of it.
pub struct Spawning {
    /// The short-lived process that prepares the spawn; a child of the shim.
    pub builder: Pid,
    receiver: Receiver,
    wants_terminal: bool,
    /// The pid has been handed out.
    told: bool,
    pid: Option<Pid>,
    terminal: Option<OwnedFd>,
    announced: bool,
    failed: Option<SpawnError>,
    ended: bool,
}

/// How far a spawn is.
#[derive(Debug)]
pub enum Progress {
    /// Wait until the descriptor is readable again.
    Pending,
    /// The process exists, as a child of the shim. The terminal's master comes with it where one was asked for, unless
    /// the spawn has failed before it was made.
    Spawned { pid: Pid, terminal: Option<OwnedFd> },
    /// The workload is executing: done.
    Executing,
    /// It will not execute: done. A process that was spawned has ended or is about to.
    Failed(SpawnError),
}

/// Forks; `run` is what the child does. It returns only to report a failure.
pub(super) fn spawn(wants_terminal: bool, run: impl FnOnce(&Reporter) -> Result<()>) -> Result<Spawning> {
    let (receiver, reporter) = status::pair().failing(|| "make a status socket".to_owned())?;
    match fork().failing(|| "fork a builder".to_owned())? {
        Side::Parent(builder) => Ok(Spawning {
            builder,
            receiver,
            wants_terminal,
            told: false,
            pid: None,
            terminal: None,
            announced: false,
            failed: None,
            ended: false,
        }),
        Side::Child => match run(&reporter) {
            Ok(()) => exit_now(0),
            Err(error) => {
                // If this fails too, the end of file tells the shim that the spawn did.
                let _ = reporter.failed(&error);
                exit_now(127)
            }
        },
    }
}

impl Spawning {
    /// Becomes readable when there is progress.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    /// The next step of progress; never waits.
    pub fn next(&mut self) -> Progress {
        loop {
            if let Some(progress) = self.deliver() {
                return progress;
            }
            match self.receiver.receive() {
                Ok(Received::Nothing) => return Progress::Pending,
                Ok(Received::Packet(packet)) => self.take(packet),
                Ok(Received::End) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.announced = false;
                    let failure: Result<()> = Err(error).failing(|| "read the status of a spawn".to_owned());
                    self.failed = self.failed.take().or(failure.err());
                }
            }
        }
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Spawned(pid) => self.pid = Some(pid),
            Packet::Terminal(master) => self.terminal = Some(master),
            Packet::Executing => self.announced = true,
            Packet::Failed(error) => self.failed = Some(error),
        }
    }

    /// The pid comes first, always: a process that failed is to be reaped too.
    fn deliver(&mut self) -> Option<Progress> {
        let over = self.ended || self.failed.is_some();
        if let Some(pid) = self.pid
            && !self.told
            && (over || !self.wants_terminal || self.terminal.is_some())
        {
            self.told = true;
            return Some(Progress::Spawned { pid, terminal: self.terminal.take() });
        }
        if !self.told && !self.ended {
            return None;
        }
        if let Some(error) = self.failed.take() {
            self.announced = false;
            return Some(Progress::Failed(error));
        }
        match (self.ended, self.announced) {
            (false, _) => None,
            (true, true) => Some(Progress::Executing),
            (true, false) => Some(Progress::Failed(SpawnError::refused(
                "prepare",
                "the process was killed before it could execute its program",
            ))),
        }
    }
}
