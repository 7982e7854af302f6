//! File descriptors that tasks wait for. What does not live here: reading them.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Takes a non-blocking descriptor into the runtime's epoll.
pub fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "its one danger is a type that lets go of its descriptor; OwnedFd does not"
    )]
    AsyncFd::new(fd)
}
