//! What attached clients are given: all that the container writes from then on. A client that is slower than the container
//! slows it down, for otherwise bytes would be missing in the middle of its output; but a client that does not take one
//! piece of output within `PATIENCE` is dropped, so that none holds the container up for long enough to fail its probes.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::attach::{Client, Role};
use crate::event_loop::{EventLoop, Key, Source};
use crate::log::Stream;
use crate::process::Container;

/// How long a client may take for what one read of the container's output gave.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client has not taken yet.
pub struct Behind {
    bytes: Vec<u8>,
    /// None: the stream has ended, the container waits no more.
    until: Option<Instant>,
}

impl Client {
    fn watches(&self, stream: Stream) -> bool {
        self.role == Role::Watching(stream)
    }

    /// False if it has gone.
    fn give(&mut self, bytes: &[u8], events: &EventLoop) -> bool {
        if let Some(behind) = &mut self.behind {
            behind.bytes.extend_from_slice(bytes);
            return true;
        }
        let taken = match rustix::io::write(&self.fd, bytes) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return false,
        };
        if taken < bytes.len() {
            let bytes = bytes[taken..].to_vec();
            self.behind = Some(Behind { bytes, until: Some(Instant::now() + PATIENCE) });
            return self.key.is_some_and(|key| events.modify(key, &self.fd, EventFlags::OUT).is_ok());
        }
        true
    }

    /// False if it has gone, or needs no more.
    fn catch_up(&mut self, events: &EventLoop) -> bool {
        let Some(behind) = &mut self.behind else {
            // It was watched for its closing only.
            return false;
        };
        match rustix::io::write(&self.fd, &behind.bytes) {
            Ok(count) => drop(behind.bytes.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
        if !behind.bytes.is_empty() {
            return true;
        }
        let over = behind.until.is_none();
        self.behind = None;
        !over && self.key.is_some_and(|key| events.modify(key, &self.fd, EventFlags::empty()).is_ok())
    }
}

impl Container {
    /// Copies output to the clients that watch this stream.
    pub fn copy_to_clients(&mut self, id: &str, stream: Stream, bytes: &[u8], events: &mut EventLoop) {
        if self.clients.is_empty() {
            return;
        }
        let gone = |client: &mut Client| (!client.give(bytes, events)).then_some(client.key).flatten();
        let gone: Vec<Key> =
            self.clients.iter_mut().filter(|client| client.watches(stream)).filter_map(gone).collect();
        gone.into_iter().for_each(|key| self.drop_client(id, key, events));
        self.pace(id, events);
    }

    /// A client has room again, or has closed.
    pub fn serve_watcher(&mut self, id: &str, key: Key, events: &mut EventLoop) {
        let client = self.clients.iter_mut().find(|client| client.key == Some(key));
        match client.map(|client| client.catch_up(events)) {
            Some(true) => self.pace(id, events),
            Some(false) => self.drop_client(id, key, events),
            None => {}
        }
    }

    /// Reads an output exactly while all of its clients keep up.
    pub fn pace(&mut self, id: &str, events: &mut EventLoop) {
        for output in &mut self.outputs {
            let behind =
                self.clients.iter().any(|client| client.watches(output.stream) && client.behind.is_some());
            match output.key {
                Some(key) if behind => {
                    events.remove(key, output.fd.as_fd());
                    output.key = None;
                }
                None if !behind => {
                    let source = Source::Output { container: id.to_owned(), stream: output.stream };
                    match events.add(&output.fd, source, EventFlags::IN) {
                        Ok(key) => output.key = Some(key),
                        Err(error) => eprintln!("container {id}: cannot watch its output: {error}"),
                    }
                }
                _ => {}
            }
        }
    }

    /// When the next client will have taken too long.
    pub fn patience(&self) -> Option<Instant> {
        self.clients.iter().filter_map(|client| client.behind.as_ref()?.until).min()
    }

    /// Drops the clients that have taken too long.
    pub fn drop_stuck(&mut self, id: &str, now: Instant, events: &mut EventLoop) {
        let stuck = |client: &Client| {
            client.behind.as_ref().is_some_and(|b| b.until.is_some_and(|until| until <= now))
        };
        self.drop_clients(stuck, events);
        self.pace(id, events);
    }

    /// A stream has ended: its clients see the end when they have taken everything.
    pub fn end_watching(&mut self, stream: Stream, events: &mut EventLoop) {
        self.drop_clients(|client| client.watches(stream) && client.behind.is_none(), events);
        let late = self.clients.iter_mut().filter(|client| client.watches(stream));
        late.filter_map(|client| client.behind.as_mut()).for_each(|behind| behind.until = None);
    }
}
