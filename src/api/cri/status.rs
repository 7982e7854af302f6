//! Errors of the domain as gRPC statuses: the only place that knows codes.

use tonic::{Code, Status};

use super::convert::Invalid;
use crate::api::streaming::TokenError;
use crate::error::{Error, Kind, chain};

/// An error with all its causes, under the code of its kind.
pub(in crate::api) fn status(error: impl Into<Error>) -> Status {
    let error = error.into();
    let text = match error.kubelet_word() {
        Some(word) => format!("{word}: {}", chain(&error)),
        None => chain(&error),
    };
    Status::new(code(error.kind()), text)
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Full => Self::resource_exhausted(error.to_string()),
            TokenError::NoRandomness => Self::internal(error.to_string()),
        }
    }
}

/// An RPC that a later version answers.
pub(super) fn unimplemented<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("this version of Berth does not know {what} yet")))
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        // The kubelet looks at the beginning of a pull's message only if the code says nothing.
        Kind::RegistryUnavailable | Kind::SignatureValidationFailed => Code::Unknown,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::DataLoss => Code::DataLoss,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
