//! Kinds of network failures.

use super::NetworkError;
use super::builtin::{BuiltInError, TakenError};
use crate::error::Kind;

impl NetworkError {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BuiltIn { source: BuiltInError::Taken(TakenError::Exhausted(_)), .. } => {
                Kind::ResourceExhausted
            }
            Self::BuiltIn { source: BuiltInError::Taken(TakenError::Port { .. }), .. } => {
                Kind::FailedPrecondition
            }
            Self::Subnet(_) => Kind::InvalidArgument,
            _ => Kind::Internal,
        }
    }
}
