//! The socket by which the builder and the container's first process tell the shim how far they are: its packets, both
//! ends. Closed by execve, so that its end of file means: the workload is running.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::failure::SpawnError;

const SPAWNED: u8 = 1;
const TERMINAL: u8 = 2;
const EXECUTING: u8 = 3;
const FAILED: u8 = 4;
/// A path may take 4096 bytes, and a message names two at most.
const MAX_PACKET: usize = 16 * 1024;

pub(super) enum Packet {
    Spawned(Pid),
    Terminal(OwnedFd),
    /// The next thing is execve.
    Executing,
    Failed(SpawnError),
}

/// What came in.
pub(super) enum Received {
    Packet(Packet),
    Nothing,
    /// Nobody is left to send.
    End,
}

/// The end that the forked processes write to.
pub(super) struct Reporter {
    socket: OwnedFd,
}

/// The end that the shim reads.
pub(super) struct Receiver {
    socket: OwnedFd,
}

/// Makes both ends.
pub(super) fn pair() -> io::Result<(Receiver, Reporter)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Receiver { socket: ours }, Reporter { socket: theirs }))
}

impl Reporter {
    pub(super) fn spawned(&self, pid: Pid) -> io::Result<()> {
        self.write(&[&[SPAWNED][..], &pid.as_raw().to_le_bytes()].concat())
    }

    pub(super) fn executing(&self) -> io::Result<()> {
        self.write(&[EXECUTING])
    }

    pub(super) fn terminal(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [master];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let payload = [IoSlice::new(&[TERMINAL])];
        rustix::net::sendmsg(&self.socket, &payload, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    pub(super) fn failed(&self, error: &SpawnError) -> io::Result<()> {
        // A path in it may be as long as the packet; the message comes behind it.
        let step = &error.step.as_bytes()[..error.step.len().min(MAX_PACKET / 2)];
        let mut packet = vec![FAILED];
        packet.extend(error.errno.to_le_bytes());
        packet.extend(u32::try_from(step.len()).map_err(io::Error::other)?.to_le_bytes());
        packet.extend(step);
        packet.extend(error.message.as_bytes());
        packet.truncate(MAX_PACKET);
        self.write(&packet)
    }

    /// By write(2): of all calls that could send, the one that every seccomp profile allows.
    fn write(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.socket, packet)?;
        Ok(())
    }
}

impl Receiver {
    /// Receives one packet without waiting.
    pub(super) fn receive(&self) -> io::Result<Received> {
        let mut bytes = [0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let length = loop {
            let mut into = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.socket, &mut into, &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(error) => return Err(error.into()),
                Ok(message) => break message.bytes,
            }
        };
        if length == 0 {
            return Ok(Received::End);
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        parse(&bytes[..length], fd).map(Received::Packet).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a spawned process sent a packet that means nothing")
        })
    }
}

fn parse(packet: &[u8], fd: Option<OwnedFd>) -> Option<Packet> {
    let (tag, body) = packet.split_first()?;
    match *tag {
        SPAWNED => Some(Packet::Spawned(Pid::from_raw(i32::from_le_bytes(body.try_into().ok()?)))),
        TERMINAL => Some(Packet::Terminal(fd?)),
        EXECUTING => Some(Packet::Executing),
        FAILED => {
            let (errno, rest) = body.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (step, message) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some(Packet::Failed(SpawnError {
                step: String::from_utf8_lossy(step).into_owned(),
                errno: i32::from_le_bytes(*errno),
                message: String::from_utf8_lossy(message).into_owned(),
            }))
        }
        _ => None,
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
