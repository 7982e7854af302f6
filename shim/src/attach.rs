//! Clients attached to a container's streams. What lives here: who is attached, and for how long. What does not: what they
//! write (typing.rs), and what they are given (watching.rs).

use std::os::fd::{AsFd, OwnedFd};

use berth_proto::shim::v1;
use berth_sys::socket;
use rustix::event::epoll::EventFlags;

use crate::event_loop::{EventLoop, Key, Source};
use crate::failure::Failure;
use crate::log::Stream;
use crate::process::Container;
use crate::watching::Behind;

/// Most descriptors of clients that a container keeps: a client that has gone leaves its last input behind, until the
/// container takes it.
const MOST: usize = 256;

/// One end of a client: an output of the container to it, or its input.
pub struct Client {
    pub fd: OwnedFd,
    /// None while its input waits in its pipe for the container: epoll would tell of a hang-up again and again, and
    /// what is in the pipe still counts.
    pub key: Option<Key>,
    pub role: Role,
    /// Set while it has output to take.
    pub behind: Option<Behind>,
}

/// What a client's descriptor is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Typing,
    Watching(Stream),
}

impl Container {
    /// Adds a client's descriptors.
    pub fn attach(
        &mut self,
        id: &str,
        attach: &v1::Attach,
        fds: Vec<OwnedFd>,
        events: &mut EventLoop,
    ) -> Result<(), Failure> {
        if attach.stdin && self.stdin.is_none() {
            return Err(Failure::refused(
                "attach",
                rustix::io::Errno::NOENT,
                format!("container {id} has no open stdin"),
            ));
        }
        if self.clients.len() + fds.len() > MOST {
            let text = format!("container {id} has too many attached clients");
            return Err(Failure::refused("attach", rustix::io::Errno::MFILE, text));
        }
        let roles = [
            attach.stdin.then_some(Role::Typing),
            attach.stdout.then_some(Role::Watching(Stream::Stdout)),
            attach.stderr.then_some(Role::Watching(Stream::Stderr)),
        ];
        for (fd, role) in fds.into_iter().zip(roles.into_iter().flatten()) {
            let fail = |error: std::io::Error| Failure::io("attach", format!("to container {id}"), error);
            socket::set_nonblocking(&fd).map_err(fail)?;
            let container = id.to_owned();
            let key = match role {
                Role::Typing if !self.takes_input() => None,
                Role::Typing => {
                    Some(events.add(&fd, Source::Typing { container }, EventFlags::IN).map_err(fail)?)
                }
                Role::Watching(_) => {
                    Some(events.add(&fd, Source::Watching { container }, EventFlags::empty()).map_err(fail)?)
                }
            };
            self.clients.push(Client { fd, key, role, behind: None });
        }
        Ok(())
    }

    /// Forgets a client's descriptor: it has closed, or nothing more will go through it.
    pub fn drop_client(&mut self, id: &str, key: Key, events: &mut EventLoop) {
        if let Some(at) = self.clients.iter().position(|client| client.key == Some(key)) {
            let client = self.clients.swap_remove(at);
            events.remove(key, client.fd.as_fd());
            self.pace(id, events);
        }
    }

    /// Forgets all clients that `which` picks; they see the end of their stream.
    pub fn drop_clients(&mut self, which: impl Fn(&Client) -> bool, events: &mut EventLoop) {
        for client in self.clients.extract_if(.., |client| which(client)) {
            if let Some(key) = client.key {
                events.remove(key, client.fd.as_fd());
            }
        }
    }
}
