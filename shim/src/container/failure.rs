//! What a spawn can fail with, and how an errno becomes one. Sending it to the shim lives in `status`.

use std::io;

use nix::errno::Errno;

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpawnError {
    /// The step that failed, for instance "mount /proc" or "execute".
    pub step: String,
    /// The errno of the call that failed; 0 where no system call failed.
    pub errno: i32,
    /// What a user can act on: names the object and the cause.
    pub message: String,
}

pub(super) type Result<T> = std::result::Result<T, SpawnError>;

impl SpawnError {
    /// A failure that no system call reported.
    pub(super) fn refused(step: impl Into<String>, message: impl Into<String>) -> Self {
        Self { step: step.into(), errno: 0, message: message.into() }
    }
}

/// Names the step and the object at which a system call failed.
pub(super) trait Failing<T> {
    /// `step` is also the beginning of the message: "step: errno text".
    fn failing(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Failing<T> for std::result::Result<T, E> {
    fn failing(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let step = step();
            let message = format!("{step}: {}", cause(&error));
            SpawnError { step, errno: error.raw_os_error().unwrap_or(0), message }
        })
    }
}

/// The text of an errno without its number, or the error's own text.
pub(super) fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
