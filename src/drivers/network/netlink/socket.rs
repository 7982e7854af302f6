//! A blocking netlink socket: send a batch, learn the first error; ask, get the answers.
//! What does not live here: the content of messages.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::NetlinkError;
use super::message::{Batch, DONE, ERROR, Message, messages, read_u32};

/// The kernel answers at once; this bounds the case that it does not.
const PATIENCE: Duration = Duration::from_secs(10);
/// A dump's datagram has at most this size.
const DATAGRAM: usize = 64 << 10;

/// A socket of the network namespace of the thread that opened it.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// For links, addresses and routes.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(None).map_err(|source| NetlinkError::new("open a netlink route socket", source))
    }

    /// For nftables and conntrack.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        let socket = Self::open(Some(NETFILTER))
            .map_err(|source| NetlinkError::new("open a netlink netfilter socket", source))?;
        // The whole rule set goes in one datagram. A refusal only bounds how many host ports a node can have.
        let _ = set_socket_send_buffer_size_force(&socket.fd, 16 << 20);
        Ok(socket)
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends a batch with a message that asks for an ACK, and waits for that; the first error that any message got, with its index.
    pub fn apply(&mut self, batch: Batch) -> Result<(), (u32, io::Error)> {
        let (count, last) = (batch.count(), batch.awaited());
        let first = self.send(batch).map_err(|error| (0, error))?;
        let mut failure = None;
        loop {
            let size = self.receive().map_err(|error| (0, error))?;
            for message in messages(&self.buffer[..size]) {
                let index = message.sequence.wrapping_sub(first);
                if message.kind != ERROR || index >= count {
                    continue;
                }
                if let Some(error) = errno(&message) {
                    failure.get_or_insert((index, error));
                }
                // An error of the first message is that of a whole nfnetlink batch: no further answer is certain.
                if index == last || (index == 0 && failure.is_some()) {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one question that is a dump, and returns the payloads of all answers.
    pub fn dump(&mut self, batch: Batch) -> io::Result<Vec<Vec<u8>>> {
        let sequence = self.send(batch)?;
        let mut answers = Vec::new();
        loop {
            let size = self.receive()?;
            for message in messages(&self.buffer[..size]).filter(|m| m.sequence == sequence) {
                match message.kind {
                    DONE => return Ok(answers),
                    ERROR => return errno(&message).map_or(Ok(answers), Err),
                    _ => answers.push(message.payload.to_vec()),
                }
            }
        }
    }

    /// Sends one question without ACK that has one answer, and returns its payload.
    pub fn ask(&mut self, batch: Batch) -> io::Result<Vec<u8>> {
        let sequence = self.send(batch)?;
        loop {
            let size = self.receive()?;
            if let Some(message) = messages(&self.buffer[..size]).find(|m| m.sequence == sequence) {
                return match message.kind {
                    ERROR => Err(errno(&message).unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
                    _ => Ok(message.payload.to_vec()),
                };
            }
        }
    }

    fn send(&mut self, batch: Batch) -> io::Result<u32> {
        let first = self.sequence;
        self.sequence = first.wrapping_add(batch.count());
        send(&self.fd, &batch.finish(first), SendFlags::empty())?;
        Ok(first)
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((size, _)) => return Ok(size),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn errno(message: &Message<'_>) -> Option<io::Error> {
    match read_u32(message.payload, 0).map(|code| code as i32) {
        Some(0) => None,
        Some(code) => Some(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Some(io::ErrorKind::InvalidData.into()),
    }
}
