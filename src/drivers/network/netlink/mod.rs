//! Netlink, as far as a pod's network needs it: messages, a blocking socket, and one file for each thing that is made.
//! What does not live here: which links, addresses and rules a pod gets.

pub mod conntrack;
pub mod expression;
pub mod link;
pub mod message;
pub mod nft;
pub mod socket;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct NetlinkError {
    /// What was asked, with its object: `make link x`.
    pub operation: String,
    /// The kernel's errno.
    #[source]
    pub source: std::io::Error,
}

impl NetlinkError {
    /// Names what failed.
    pub fn new(operation: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self { operation: operation.into(), source: source.into() }
    }

    /// Whether the kernel answered with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }

    /// Whether something that should have been there is not.
    pub fn is_missing(&self) -> bool {
        self.is(nix::libc::ENODEV) || self.is(nix::libc::ENOENT) || self.is(nix::libc::EINVAL)
    }
}
