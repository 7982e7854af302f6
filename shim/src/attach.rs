//! Clients attached to a container's streams. A client never holds the container up: output that its pipe has no room
//! for is lost to it, and its input is read only while the container takes it.

use std::os::fd::{AsFd, OwnedFd};

use berth_proto::shim::v1;
use berth_sys::socket;
use rustix::event::epoll::EventFlags;

use crate::event_loop::{EventLoop, Key, Source};
use crate::failure::Failure;
use crate::log::Stream;
use crate::process::{Container, Stdin};

/// Most bytes read from a client at a time, and so most that wait for the container.
const INPUT: usize = 4096;

/// One end of a client: an output of the container to it, or its input.
pub struct Client {
    fd: OwnedFd,
    /// None while its input waits in its pipe for the container: epoll would tell of a hang-up again and again, and
    /// what is in the pipe still counts.
    key: Option<Key>,
    role: Role,
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
            self.clients.push(Client { fd, key, role });
        }
        Ok(())
    }

    fn takes_input(&self) -> bool {
        self.stdin.as_ref().is_some_and(|stdin| stdin.pending.is_empty())
    }

    /// Copies output to the clients that watch this stream.
    pub fn copy_to_clients(&mut self, stream: Stream, bytes: &[u8], events: &mut EventLoop) {
        let watches = |client: &&Client| client.role == Role::Watching(stream);
        let failed = |client: &Client| match rustix::io::write(&client.fd, bytes) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Err(_) => client.key,
        };
        let gone: Vec<Key> = self.clients.iter().filter(watches).filter_map(failed).collect();
        gone.into_iter().for_each(|key| self.drop_client(key, events));
    }

    /// Forgets a client's descriptor: it has closed, or nothing more will go through it.
    pub fn drop_client(&mut self, key: Key, events: &mut EventLoop) {
        if let Some(at) = self.clients.iter().position(|client| client.key == Some(key)) {
            let client = self.clients.swap_remove(at);
            events.remove(key, client.fd.as_fd());
        }
    }

    /// Forgets all clients of a role that `which` picks; they see the end of their stream.
    pub fn drop_clients(&mut self, which: impl Fn(Role) -> bool, events: &mut EventLoop) {
        for client in self.clients.extract_if(.., |client| which(client.role)) {
            if let Some(key) = client.key {
                events.remove(key, client.fd.as_fd());
            }
        }
    }

    /// A client's input has bytes, or its end.
    pub fn take_input(&mut self, id: &str, key: Key, events: &mut EventLoop) {
        let Some(client) = self.clients.iter().find(|client| client.key == Some(key)) else {
            return;
        };
        let Some(stdin) = &mut self.stdin else {
            return self.drop_client(key, events);
        };
        if !stdin.pending.is_empty() {
            // Told in the same round in which another client filled it.
            return self.update_typing(id, events);
        }
        let mut buffer = [0; INPUT];
        match rustix::io::read(&client.fd, &mut buffer[..]) {
            Ok(0) => self.end_input(key, events),
            Ok(count) => {
                stdin.pending.extend_from_slice(&buffer[..count]);
                self.feed_stdin(id, events);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.end_input(key, events),
        }
    }

    fn end_input(&mut self, key: Key, events: &mut EventLoop) {
        self.drop_client(key, events);
        if let Some(stdin) = &mut self.stdin
            && stdin.once
        {
            stdin.closing = true;
            if stdin.pending.is_empty() {
                self.close_stdin(events);
            }
        }
    }

    /// Gives the container what waits for it, and waits for room or for more input.
    pub fn feed_stdin(&mut self, id: &str, events: &mut EventLoop) {
        let Some(stdin) = &mut self.stdin else { return };
        match rustix::io::write(&stdin.fd, &stdin.pending) {
            Ok(count) => drop(stdin.pending.drain(..count)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => return self.close_stdin(events),
        }
        if stdin.pending.is_empty() {
            stdin.pending = Vec::new();
            if let Some(key) = stdin.key.take() {
                events.remove(key, stdin.fd.as_fd());
            }
            if stdin.closing {
                return self.close_stdin(events);
            }
        } else if stdin.key.is_none() {
            let source = Source::Stdin { container: id.to_owned() };
            stdin.key = events.add(&stdin.fd, source, EventFlags::OUT).ok();
        }
        self.update_typing(id, events);
    }

    /// Waits for clients' input exactly while the container takes it.
    fn update_typing(&mut self, id: &str, events: &mut EventLoop) {
        let wanted = self.takes_input();
        for client in self.clients.iter_mut().filter(|client| client.role == Role::Typing) {
            match client.key {
                Some(key) if !wanted => {
                    events.remove(key, client.fd.as_fd());
                    client.key = None;
                }
                None if wanted => {
                    let source = Source::Typing { container: id.to_owned() };
                    client.key = events.add(&client.fd, source, EventFlags::IN).ok();
                }
                _ => {}
            }
        }
    }

    /// The container reads the end of its stdin; clients cannot type any more.
    pub fn close_stdin(&mut self, events: &mut EventLoop) {
        if let Some(Stdin { fd, key: Some(key), .. }) = self.stdin.take() {
            events.remove(key, fd.as_fd());
        }
        self.drop_clients(|role| role == Role::Typing, events);
    }
}
