//! What a container can be: created, running or exited, and which follows which. A pid exists only in Running, an exit
//! code only in Exited.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// The live state, as the daemon holds it.
#[derive(Debug)]
pub(super) enum State {
    /// Made, not started. It is mounted already, unless a daemon before this one had done that.
    Created { mounted: Option<Mounted> },
    /// The shim is spawning it; it may end before the shim's answer is here.
    Starting { ended: Option<Exit> },
    /// Its process lives.
    Running(Run),
    /// Its process has ended, or never came to be.
    Exited(Exited),
}

/// What of a container is mounted before its start, attached nowhere.
#[derive(Debug)]
pub(super) struct Mounted {
    /// Its root.
    pub root: OwnedFd,
    /// Its image volumes, in the request's order.
    pub volumes: Vec<OwnedFd>,
}

/// A live process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// As the host sees it.
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
}

/// An end as the shim reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 128 + signal where a signal ended it.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// 0 if it never ran.
    pub started_at: i64,
    /// Code and time.
    pub exit: Exit,
    /// Why, in a word.
    pub reason: Reason,
    /// Why, for a person; often empty.
    pub message: String,
}

/// The reasons that the kubelet knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Exit code 0.
    Completed,
    /// Any other exit code.
    Error,
    /// Killed for its memory limit.
    OomKilled,
    /// Its process could not be executed.
    StartError,
    /// The shim was lost, and the exit code with it.
    Unknown,
}

impl Reason {
    /// As ContainerStatus.reason has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Unknown => "Unknown",
        }
    }

    /// The reason of an end that the shim saw.
    pub(super) fn of(exit: Exit, oom_killed: bool) -> Self {
        match exit.code {
            0 => Self::Completed,
            137 if oom_killed => Self::OomKilled,
            _ => Self::Error,
        }
    }
}

/// The state as others see it, and as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Made, not started.
    Created,
    /// Its process lives.
    Running(Run),
    /// Its process has ended.
    Exited(Exited),
}

impl State {
    /// Lets go what is mounted.
    pub(super) fn unmount(&mut self) {
        if let Self::Created { mounted } = self {
            mounted.take();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Created { .. } | Self::Starting { .. } => Phase::Created,
            Self::Running(run) => Phase::Running(*run),
            Self::Exited(exited) => Phase::Exited(exited.clone()),
        }
    }
}

impl From<Phase> for State {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Created => Self::Created { mounted: None },
            Phase::Running(run) => Self::Running(run),
            Phase::Exited(exited) => Self::Exited(exited),
        }
    }
}

impl Phase {
    /// In a word, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Exited(_) => "exited",
        }
    }
}
