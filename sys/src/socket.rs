//! Unix sockets of type SOCK_SEQPACKET: one packet is one message, with file descriptors beside it.
//! What lives here: both ends' socket calls. What does not: what the packets mean (proto/).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The kernel's own limit is 253 (SCM_MAX_FD); Berth's packets carry fewer.
pub const MAX_FDS: usize = 128;

/// A connection that waits in the kernel until it is accepted.
const BACKLOG: i32 = 16;

/// One packet that [`recv`] took.
#[derive(Debug)]
pub struct Packet {
    /// Bytes of the buffer that hold the packet. 0 = the peer has closed.
    pub len: usize,
    /// What came beside it, in the sender's order, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Sends one packet, whole or not at all. `WouldBlock` where a non-blocking socket is full; never SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many file descriptors for one packet"));
    }
    let sent = retry(|| net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one packet. A packet larger than `buffer`, or with more than [`MAX_FDS`] descriptors, is
/// `InvalidData`; its descriptors are closed and the rest of it is gone.
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = retry(|| net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet larger than the protocol allows"));
    }
    Ok(Packet { len: received.bytes, fds })
}

/// Bytes of the next packet, which stays in the queue: a reader needs no buffer for the largest one.
/// 0 = the peer has closed (or sent an empty packet).
pub fn next_len(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let (_, len) = retry(|| net::recv(socket, &mut [0_u8; 0], RecvFlags::PEEK | RecvFlags::TRUNC))?;
    Ok(len)
}

/// Binds `path`, which must not exist, and listens. Close-on-exec, non-blocking.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    with_address(path, |address| Ok(net::bind(&socket, address)?))?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Connects to `path`; blocking, close-on-exec.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::CLOEXEC)?;
    with_address(path, |address| retry(|| net::connect(&socket, address)))?;
    Ok(socket)
}

/// The address of a path, however long: past the 107 bytes that an address holds (unix(7)) it goes through a
/// descriptor of the directory.
fn with_address<T>(path: &Path, call: impl FnOnce(&SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return call(&address);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, rustix::fs::Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    call(&SocketAddrUnix::new(&short)?)
}

/// The next connection; non-blocking, close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    retry(|| net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK))
}

/// Two connected ends, blocking, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// User id of the process that connected or made the socket.
pub fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Whether `fd` is a listening SOCK_SEQPACKET socket.
pub fn is_listener(fd: BorrowedFd<'_>) -> bool {
    net::sockopt::socket_acceptconn(fd).unwrap_or(false)
        && net::sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

/// Makes reads and writes on `fd` return `WouldBlock` instead of waiting. Belongs to the open file, so every
/// holder of the same description is affected.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use super::*;

    #[test]
    fn a_packet_carries_bytes_and_descriptors_in_order() {
        let (a, b) = pair().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        send(a.as_fd(), b"hello", &[read.as_fd(), write.as_fd()]).unwrap();
        drop((read, write));
        assert_eq!(next_len(b.as_fd()).unwrap(), 5);
        let mut buffer = [0; 16];
        let packet = recv(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..packet.len], packet.fds.len()), (&b"hello"[..], 2));
        let mut fds = packet.fds.into_iter();
        let (mut read, mut write) =
            (std::fs::File::from(fds.next().unwrap()), std::fs::File::from(fds.next().unwrap()));
        write.write_all(b"x").unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert!(rustix::io::fcntl_getfd(&read).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_packet_that_is_too_large_is_refused_and_its_descriptors_are_closed() {
        let (a, b) = pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(a.as_fd(), &[7; 100], &[write.as_fd()]).unwrap();
        drop(write);
        assert_eq!(recv(b.as_fd(), &mut [0; 10]).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read.read(&mut [0; 1]).unwrap(), 0, "the write end was left open");
    }

    #[test]
    fn a_closed_peer_is_an_empty_packet_and_a_send_to_it_is_an_error() {
        let (a, b) = pair().unwrap();
        drop(a);
        assert_eq!(recv(b.as_fd(), &mut [0; 10]).unwrap().len, 0);
        assert_eq!(send(b.as_fd(), b"x", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_listener_is_told_from_a_connection_and_knows_its_peer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = listen(&path).unwrap();
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), ErrorKind::WouldBlock);
        let client = connect(&path).unwrap();
        let server = accept(listener.as_fd()).unwrap();
        assert!(is_listener(listener.as_fd()) && !is_listener(client.as_fd()));
        assert_eq!(peer_uid(server.as_fd()).unwrap(), rustix::process::getuid().as_raw());
    }
}
