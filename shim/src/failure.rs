//! What a request can fail with, as it goes over the wire: step, errno and a message for a user.

use std::fmt::Display;
use std::io;

use berth_proto::shim::v1;

use crate::container::SpawnError;

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The step, for instance "join cgroup".
    pub step: String,
    /// 0 where no system call failed.
    pub errno: i32,
    /// Names the object and the cause.
    pub message: String,
}

impl Failure {
    /// The request itself is wrong.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self { step: "protocol".into(), errno: 0, message: message.into() }
    }

    /// Refused with an errno of our own.
    pub fn refused(step: &str, errno: rustix::io::Errno, message: impl Into<String>) -> Self {
        Self { step: step.into(), errno: errno.raw_os_error(), message: message.into() }
    }

    /// A system call failed on `object`.
    pub fn io(step: &str, object: impl Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error().unwrap_or(0);
        let cause = match errno {
            0 => error.to_string(),
            errno => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        };
        Self { step: step.into(), errno, message: format!("{step} {object}: {cause}") }
    }
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        Self { step: error.step, errno: error.errno, message: error.message }
    }
}

impl From<Failure> for v1::Error {
    fn from(failure: Failure) -> Self {
        Self { step: failure.step, errno: failure.errno, message: failure.message }
    }
}
