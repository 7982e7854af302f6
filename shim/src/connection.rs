//! One connection of a daemon: packets in, and a bounded queue of packets out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_proto::shim::{MAX_FDS, MAX_PACKET, v1};
use berth_sys::socket;
use prost::Message as _;

/// Packets that wait for a daemon that does not read; one more ends the connection, and Hello tells all of it again. Enough
/// for a busy node and thousands of execs that end at once: their ends are lost with the connection. A packet is 100 to
/// 200 bytes.
const MAX_QUEUED: usize = 4096;

/// A daemon that is connected.
pub struct Connection {
    socket: OwnedFd,
    /// It has said Hello, so it gets events.
    pub greeted: bool,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// What a connection's readiness brought.
pub enum Incoming {
    Request(Box<v1::Request>, Vec<OwnedFd>),
    Nothing,
    /// Closed by the peer, or broken, or it sent what is no packet of this protocol.
    Closed,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, greeted: false, queue: VecDeque::new() }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the socket's room is waited for.
    pub fn is_blocked(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next packet.
    pub fn receive(&self) -> Incoming {
        let len = match socket::next_len(self.as_fd()) {
            Ok(len) if (1..=MAX_PACKET).contains(&len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Incoming::Nothing,
            Ok(_) | Err(_) => return Incoming::Closed,
        };
        let mut bytes = vec![0; len];
        match socket::recv(self.as_fd(), &mut bytes) {
            Ok(packet) if packet.len > 0 && packet.fds.len() <= MAX_FDS => {
                match v1::Request::decode(&bytes[..packet.len]) {
                    Ok(request) => Incoming::Request(Box::new(request), packet.fds),
                    Err(_) => Incoming::Closed,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Incoming::Nothing,
            Ok(_) | Err(_) => Incoming::Closed,
        }
    }

    /// Sends a message, or queues it. An error ends the connection.
    pub fn send(&mut self, message: &v1::Message, fds: Vec<OwnedFd>) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_PACKET || self.queue.len() >= MAX_QUEUED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.queue.push_back((bytes, fds));
        self.flush()
    }

    /// Sends what is queued, as far as there is room.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fds)) = self.queue.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send(self.as_fd(), bytes, &borrowed) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.queue.shrink_to_fit();
        Ok(())
    }
}
