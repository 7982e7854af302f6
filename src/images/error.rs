//! Why an image cannot be had, kept or removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::manifest::ManifestError;
use super::policy::PolicyError;
use crate::drivers::layers::{LayerError, tar::TarError};
use crate::drivers::registry::RegistryError;
use crate::drivers::signatures::TrustError;
use crate::drivers::store::StoreError;
use crate::error::{Kind, io_kind};
use crate::ids::Digest;

/// Can be cloned, because everyone who waits for the same pull receives it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry did not give what was asked.
    #[error("cannot pull image {image:?}")]
    Registry {
        /// As asked for.
        image: String,
        /// Why.
        #[source]
        source: Arc<RegistryError>,
    },
    /// The manifest, index or config is refused.
    #[error("image {image:?} is not usable")]
    BadManifest {
        /// As asked for.
        image: String,
        /// Why.
        #[source]
        source: Arc<ManifestError>,
    },
    /// The image exists, but not for this machine.
    #[error("image {image:?} is not made for {wanted}, only for {offered}")]
    NoPlatform {
        /// As asked for.
        image: String,
        /// Ours.
        wanted: String,
        /// What there is, with commas.
        offered: String,
    },
    /// A layer cannot be unpacked.
    #[error("image {image:?}: cannot unpack layer {layer}")]
    Layer {
        /// As asked for.
        image: String,
        /// Digest of its blob.
        layer: Digest,
        /// Why.
        #[source]
        source: Arc<LayerError>,
    },
    /// A blob is not what its descriptor promises.
    #[error("image {image:?}: blob {expected} has the digest {actual}")]
    DigestMismatch {
        /// As asked for.
        image: String,
        /// The promise.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob's length is not what its descriptor promises.
    #[error("image {image:?}: blob {blob} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// As asked for.
        image: String,
        /// The blob.
        blob: Digest,
        /// The promise.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The unpacked layer is not what the config promises.
    #[error("image {image:?}: layer {layer} unpacks to diff_id {actual}, not {expected} as its config says")]
    DiffIdMismatch {
        /// As asked for.
        image: String,
        /// Digest of its blob.
        layer: Digest,
        /// The promise.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The cache's own files.
    #[error("the layer cache fails for image {image:?}")]
    Cache {
        /// As asked for.
        image: String,
        /// Why.
        #[source]
        source: Arc<LayerError>,
    },
    /// The records.
    #[error("cannot keep the record of image {image:?}")]
    Store {
        /// As asked for.
        image: String,
        /// Why.
        #[source]
        source: Arc<StoreError>,
    },
    /// The archive to import does not parse.
    #[error("cannot read the image archive")]
    Archive(#[source] Arc<TarError>),
    /// The archive to import can't be read.
    #[error("cannot read the image archive")]
    ReadArchive(#[source] Arc<std::io::Error>),
    /// The archive to import did not arrive whole.
    #[error("cannot take in the image archive")]
    Upload(#[source] Arc<LayerError>),
    /// The archive to import lacks something.
    #[error("the image archive has no usable {0:?}")]
    ArchiveLacks(PathBuf),
    /// The archive to import has too many files.
    #[error("the image archive has more than {0} files")]
    ArchiveTooLarge(usize),
    /// No image has this name or id.
    #[error("there is no image {0:?}")]
    Unknown(String),
    /// The policy does not let it in.
    #[error("image {image:?} is not admitted")]
    NotAdmitted {
        /// As asked for.
        image: String,
        /// Why.
        #[source]
        source: Arc<PolicyError>,
    },
    /// A file that the policy needs.
    #[error("the policy in [image] of the configuration can't be in force")]
    Policy(#[source] Arc<TrustError>),
    /// The daemon stops, or work on the image panicked.
    #[error("work on image {image:?} was interrupted")]
    Interrupted {
        /// As asked for.
        image: String,
    },
}

impl ImageError {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Registry { source, .. } => source.kind(),
            Self::BadManifest { .. } | Self::Archive(_) | Self::ArchiveLacks(_) => Kind::InvalidArgument,
            Self::NoPlatform { .. } | Self::Unknown(_) => Kind::NotFound,
            Self::Layer { source, .. } | Self::Cache { source, .. } | Self::Upload(source) => source.kind(),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::DiffIdMismatch { .. } => {
                Kind::DataLoss
            }
            Self::ArchiveTooLarge(_) => Kind::ResourceExhausted,
            Self::ReadArchive(source) => io_kind(source),
            Self::Store { source, .. } => source.kind(),
            Self::Policy(_) => Kind::Internal,
            Self::NotAdmitted { .. } => Kind::SignatureValidationFailed,
            Self::Interrupted { .. } => Kind::Unavailable,
        }
    }
}
