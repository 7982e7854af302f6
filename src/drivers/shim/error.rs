//! What can go wrong between daemon and shim.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Kind, io_kind};
use crate::ids::PodId;

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim tried and reports why it could not.
    #[error("{message}")]
    Refused {
        /// The step that failed.
        step: String,
        /// 0 where no system call failed.
        errno: i32,
        /// Names object and cause.
        message: String,
    },
    /// The connection has ended.
    #[error("the shim of pod {pod} has gone away")]
    Gone {
        /// Its pod.
        pod: PodId,
    },
    /// No answer in time.
    #[error("the shim of pod {pod} did not answer {verb} within {after:?}")]
    Timeout {
        /// Its pod.
        pod: PodId,
        /// What was asked.
        verb: &'static str,
        /// How long the daemon waited.
        after: Duration,
    },
    /// It answered, but not to what was asked.
    #[error("the shim of pod {pod} answered {verb} with something else")]
    Protocol {
        /// Its pod.
        pod: PodId,
        /// What was asked.
        verb: &'static str,
    },
    /// A system call of the daemon failed.
    #[error("cannot {step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ShimError {
    /// Its kind. What the kernel refuses because of what it was given is the request's fault.
    pub fn kind(&self) -> Kind {
        use rustix::io::Errno;
        const REQUEST: [Errno; 9] = [
            Errno::INVAL,
            Errno::NOENT,
            Errno::ACCESS,
            Errno::NOEXEC,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::LOOP,
            Errno::TOOBIG,
            Errno::NAMETOOLONG,
        ];
        match self {
            Self::Refused { errno, .. } if REQUEST.iter().any(|known| known.raw_os_error() == *errno) => {
                Kind::InvalidArgument
            }
            Self::Refused { .. } | Self::Protocol { .. } => Kind::Internal,
            Self::Gone { .. } => Kind::Unavailable,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::Io { source, .. } => io_kind(source),
        }
    }

    pub(super) fn io(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source }
    }
}
