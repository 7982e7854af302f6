//! The kinds of failure that a caller can tell apart. What does not live here: gRPC codes (api/cri/status.rs) and the
//! errors themselves, which belong to their modules.

use crate::containers::ContainerError;
use crate::images::ImageError;
use crate::pods::PodError;

/// What a caller may do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The object does not exist.
    NotFound,
    /// The request can never work.
    InvalidArgument,
    /// Another object has that name.
    AlreadyExists,
    /// Not in this state of the object.
    FailedPrecondition,
    /// Later perhaps.
    Unavailable,
    /// The registry of an image can't be reached, or fails.
    RegistryUnavailable,
    /// The policy does not admit an image.
    SignatureValidationFailed,
    /// A limit, a quota, a full disk.
    ResourceExhausted,
    /// It took too long.
    DeadlineExceeded,
    /// Someone said no.
    PermissionDenied,
    /// Content is not what it should be.
    DataLoss,
    /// Not in this version.
    Unimplemented,
    /// Everything else.
    Internal,
}

impl Kind {
    /// In a word, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::InvalidArgument => "invalid_argument",
            Self::AlreadyExists => "already_exists",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unavailable => "unavailable",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::SignatureValidationFailed => "signature_validation_failed",
            Self::ResourceExhausted => "resource_exhausted",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::PermissionDenied => "permission_denied",
            Self::DataLoss => "data_loss",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }
}

/// Any failure of the domain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of a pod sandbox.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// Of a container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// The kubelet counts failures that begin so as an image volume's (cri-api, pkg/errors).
pub const IMAGE_VOLUME_MOUNT_FAILED: &str = "ImageVolumeMountFailed";
/// The kubelet then says that the registry is at fault (cri-api, pkg/errors).
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
/// The kubelet then says that an image's signature is at fault (cri-api, pkg/errors).
const SIGNATURE_VALIDATION_FAILED: &str = "SignatureValidationFailed";

/// The node can't do what `recursiveReadOnly: Enabled` asks for (cri-api, pkg/errors).
const RRO_UNSUPPORTED: &str = "RROUnsupported";

impl Error {
    /// The word by which the kubelet knows this failure, at the beginning of the message.
    pub fn kubelet_word(&self) -> Option<&'static str> {
        match self {
            Self::Container(error) if error.is_of_image_volume() => Some(IMAGE_VOLUME_MOUNT_FAILED),
            Self::Container(error) if error.is_no_recursion() => Some(RRO_UNSUPPORTED),
            _ => match self.kind() {
                Kind::RegistryUnavailable => Some(REGISTRY_UNAVAILABLE),
                Kind::SignatureValidationFailed => Some(SIGNATURE_VALIDATION_FAILED),
                _ => None,
            },
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(error) => error.kind(),
            Self::Container(error) => error.kind(),
            Self::Image(error) => error.kind(),
        }
    }
}

/// An error's text takes no more bytes than this: parsers quote what they do not understand, and a gRPC client takes only so much.
const TEXT_MAX: usize = 4096;

/// An error and its causes in one line: `cannot A: B: C`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
    }
    text
}

/// The kind of a failed system call.
pub fn io_kind(error: &std::io::Error) -> Kind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::ResourceExhausted,
        std::io::ErrorKind::ReadOnlyFilesystem => Kind::FailedPrecondition,
        _ => Kind::Internal,
    }
}
