//! A strict, streaming reader of tar archives. What does not live here: what is done with the entries.
//!
//! One parser serves layers and image archives, so that no two views of the same bytes exist. What other readers
//! disagree about is refused, never guessed.

mod header;
mod pax;
mod reader;
mod sparse;

pub use header::Kind;
pub use reader::{Entry, Reader};
pub use sparse::Map;

/// Longest path or link target, in bytes.
pub const PATH_MAX: usize = 4096;
/// Longest target of a symbolic link, in bytes.
pub const TARGET_MAX: usize = 4095;
/// Longest name of one directory entry, in bytes.
pub const NAME_MAX: usize = 255;
/// Largest extended header of one entry, in bytes.
pub const EXTENSION_MAX: u64 = 1 << 20;
/// Largest extended attribute that Linux takes, in bytes.
pub const XATTR_MAX: usize = 64 << 10;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be had.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// How far it was read.
        offset: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ends inside of an entry.
    #[error("the archive ends in the middle of an entry, at byte {0}")]
    Truncated(u64),
    /// It breaks the format, or uses a part of it that readers disagree about.
    #[error("the archive's entry at byte {offset} has {problem}")]
    Invalid {
        /// Where its header is.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// One of the limits in this module.
    #[error("the archive's entry at byte {offset} has {what} longer than {limit} bytes")]
    TooLong {
        /// Where its header is.
        offset: u64,
        /// What is too long.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}
