//! Why a layer cannot be unpacked, kept or mounted.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::tar::TarError;
use crate::error::{Kind, io_kind};
use crate::ids::Digest;

/// Names the entry or the path, not the layer: who asked for the layer names that.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Not a good tar archive, or its bytes could not be had or inflated.
    #[error("not a usable tar archive")]
    Tar(#[from] TarError),
    /// An entry that no honest archive has.
    #[error("the archive's entry {path:?} has {problem}")]
    Entry {
        /// Its path, as written.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The file system refused an entry.
    #[error("cannot {verb} {path:?}")]
    Apply {
        /// What was tried.
        verb: &'static str,
        /// The entry's path, as written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer stands on files of the layers below: it must be unpacked with them in view.
    #[error("the archive's entry {path:?} links to a file that is in none of the layers")]
    NeedsParents {
        /// The link.
        path: PathBuf,
    },
    /// More than is kept in memory.
    #[error(
        "the archive has too many {what} at {path:?}: what is remembered of them takes more than {limit} bytes"
    )]
    TooMany {
        /// Where it became too much, as a real path.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The cap that it broke.
        limit: usize,
    },
    /// The unpacked layer is out of proportion.
    #[error(
        "unpacks to more than {limit} bytes, which is more than its {blob} compressed bytes may (ratio_max of [layers])"
    )]
    TooLarge {
        /// The cap that it broke.
        limit: u64,
        /// Size of the blob.
        blob: u64,
    },
    /// The disk is nearly full.
    #[error("the file system of {path} has only {free} bytes left")]
    DiskFull {
        /// The staging directory.
        path: PathBuf,
        /// What is left of it.
        free: u64,
    },
    /// The file system can hold few more files.
    #[error("the file system of {path} has only {free} inodes left")]
    NoInodes {
        /// The staging directory.
        path: PathBuf,
        /// What is left of them.
        free: u64,
    },
    /// The archive's gzip form is broken or cut short.
    #[error("the archive is damaged gzip")]
    Gzip(#[source] io::Error),
    /// An operation on the cache's own directories.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The overlay cannot be mounted.
    #[error("cannot mount an overlay of {layers} layers: {step}")]
    Mount {
        /// How many.
        layers: usize,
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory of a volume's sub path is not to be had.
    #[error("cannot open the directory {path:?} inside the image")]
    SubPath {
        /// From the image's root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer that should be there.
    #[error("layer {layer} is missing or damaged on disk")]
    Missing {
        /// Which.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than overlay, or the image-spec's readers, take.
    #[error("{0} layers are more than the {max} that are supported", max = super::LAYERS_MAX)]
    TooManyLayers(usize),
}

impl LayerError {
    /// A mistake in an entry.
    pub(super) fn entry(path: &[u8], problem: &'static str) -> Self {
        Self::Entry { path: shown(path), problem }
    }

    /// For `map_err` after a system call about an entry.
    pub(super) fn apply(verb: &'static str, path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Apply { verb, path: shown(path), source: errno.into() }
    }

    /// For `map_err` after an operation on the cache.
    pub(super) fn io<E: Into<io::Error>>(
        verb: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { verb, path: path.into(), source: source.into() }
    }

    /// The disk, and not the image, is at fault.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::NoInodes { .. } => true,
            Self::Apply { source, .. } | Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// Long hostile names do not fill the log.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    OsStr::from_bytes(&path[..path.len().min(512)]).into()
}

impl LayerError {
    /// Its kind: a bad archive is the image's fault.
    pub fn kind(&self) -> Kind {
        match self {
            _ if self.is_out_of_space() => Kind::ResourceExhausted,
            Self::Tar(TarError::TooLong { .. }) | Self::TooMany { .. } | Self::TooLarge { .. } => {
                Kind::ResourceExhausted
            }
            Self::Tar(_)
            | Self::Gzip(_)
            | Self::Entry { .. }
            | Self::NeedsParents { .. }
            | Self::SubPath { .. }
            | Self::TooManyLayers(_) => Kind::InvalidArgument,
            Self::Missing { .. } => Kind::DataLoss,
            Self::Apply { source, .. } | Self::Io { source, .. } | Self::Mount { source, .. } => {
                io_kind(source)
            }
            Self::DiskFull { .. } | Self::NoInodes { .. } => Kind::ResourceExhausted,
        }
    }
}
