//! What attached clients write: all of it reaches the container, as fast as the container takes it.

use std::os::fd::AsFd;

use rustix::event::epoll::EventFlags;

use crate::attach::Role;
use crate::event_loop::{EventLoop, Key, Source};
use crate::process::{Container, Stdin};

/// Most bytes read from a client at a time, and so most that wait for the container.
const INPUT: usize = 4096;

impl Container {
    pub fn takes_input(&self) -> bool {
        self.stdin.as_ref().is_some_and(|stdin| stdin.pending.is_empty())
    }

    /// A client's input has bytes, or its end.
    pub fn take_input(&mut self, id: &str, key: Key, events: &mut EventLoop) {
        let Some(client) = self.clients.iter().find(|client| client.key == Some(key)) else {
            return;
        };
        let Some(stdin) = &mut self.stdin else {
            return self.drop_client(id, key, events);
        };
        if !stdin.pending.is_empty() {
            // Told in the same round in which another client filled it.
            return self.update_typing(id, events);
        }
        let mut buffer = [0; INPUT];
        match rustix::io::read(&client.fd, &mut buffer[..]) {
            Ok(0) => self.end_input(id, key, events),
            Ok(count) => {
                stdin.pending.extend_from_slice(&buffer[..count]);
                self.feed_stdin(id, events);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.end_input(id, key, events),
        }
    }

    fn end_input(&mut self, id: &str, key: Key, events: &mut EventLoop) {
        self.drop_client(id, key, events);
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
        self.drop_clients(|client| client.role == Role::Typing, events);
    }
}
