//! The shim's state and its loop: what each ready source means, and who is told.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_proto::shim::v1::{self, message::Body};
use berth_sys::socket;
use nix::sys::signalfd::SignalFd;
use rustix::event::epoll::EventFlags;
use rustix::process::Pid;

use crate::connection::{Connection, Incoming};
use crate::container::Pod;
use crate::event_loop::{EventLoop, Key, Source};
use crate::executed::Executed;
use crate::exit::Ended;
use crate::process::Container;
use crate::spawn::Spawn;

/// A shim that no daemon has connected to by then was left by one that died.
const ORPHANED_AFTER: Duration = Duration::from_secs(30);

/// More than the allocator keeps in its heap, so it is mapped and only the pages that were used take memory.
const BUFFER: usize = 256 * 1024;

/// Whom an answer is for.
#[derive(Clone, Copy)]
pub struct Reply {
    pub connection: Key,
    pub id: u64,
}

/// All that the shim knows.
pub struct Shim {
    pub pod_id: String,
    pub events: EventLoop,
    pub buffer: Vec<u8>,
    listener: OwnedFd,
    signals: SignalFd,
    pub connections: BTreeMap<Key, Connection>,
    /// Set by Setup.
    pub pod: Option<Pod>,
    pub setup_tried: bool,
    pub init: Option<Pid>,
    pub containers: BTreeMap<String, Container>,
    pub executed: Vec<Executed>,
    pub spawns: BTreeMap<Key, Spawn>,
    /// Ends that belong to a spawn which has not told its pid.
    pub ended: Vec<Ended>,
    /// A Shutdown under way.
    pub closing: Option<Reply>,
    connected: bool,
}

impl Shim {
    pub fn new(pod_id: String, listener: OwnedFd, signals: SignalFd) -> io::Result<Self> {
        socket::set_nonblocking(&listener)?;
        let mut events = EventLoop::new()?;
        events.add(&listener, Source::Listener, EventFlags::IN)?;
        events.add(&signals, Source::Signals, EventFlags::IN)?;
        Ok(Self {
            pod_id,
            events,
            buffer: vec![0; BUFFER],
            listener,
            signals,
            connections: BTreeMap::new(),
            pod: None,
            setup_tried: false,
            init: None,
            containers: BTreeMap::new(),
            executed: Vec::new(),
            spawns: BTreeMap::new(),
            ended: Vec::new(),
            closing: None,
            connected: false,
        })
    }

    /// Serves until Shutdown, or until the daemon of a shim without a pod has gone.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.events.wait(self.patience())?;
            if ready.is_empty() && !self.connected {
                return Ok(());
            }
            for key in ready {
                if let Some(source) = self.events.source(key).cloned() {
                    self.handle(key, source);
                }
            }
            self.drop_stuck();
            let alone = self.connected && self.pod.is_none() && self.connections.is_empty();
            if alone || self.is_closed() {
                return Ok(());
            }
        }
    }

    /// How long nothing has to happen.
    fn patience(&self) -> Option<Duration> {
        if !self.connected {
            return Some(ORPHANED_AFTER);
        }
        let next = self.containers.values().filter_map(Container::patience).min()?;
        // Rounded up, for epoll counts in milliseconds: else this would spin through the last one.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn drop_stuck(&mut self) {
        for (id, container) in &mut self.containers {
            if container.patience().is_some() {
                container.drop_stuck(id, Instant::now(), &mut self.events);
            }
        }
    }

    fn handle(&mut self, key: Key, source: Source) {
        let events = &mut self.events;
        match source {
            Source::Listener => self.accept(),
            Source::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Source::Connection => self.serve(key),
            Source::Spawn => self.advance(key),
            Source::Output { container: id, stream } => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.read_output(&id, stream, &mut self.buffer[..crate::stdio::CHUNK], events);
                }
            }
            Source::Stdin { container: id } => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.feed_stdin(&id, events);
                }
            }
            Source::Typing { container: id } => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.take_input(&id, key, events);
                }
            }
            Source::Watching { container: id } => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.serve_watcher(&id, key, events);
                }
            }
        }
    }

    fn accept(&mut self) {
        let Ok(connection) = socket::accept(self.listener.as_fd()) else {
            return;
        };
        if socket::peer_uid(connection.as_fd()).is_ok_and(|uid| uid == 0)
            && let Ok(key) = self.events.add(&connection, Source::Connection, EventFlags::IN)
        {
            self.connected = true;
            self.connections.insert(key, Connection::new(connection));
        }
    }

    fn serve(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.flush().is_err() {
            return self.disconnect(key);
        }
        match connection.receive() {
            Incoming::Request(request, fds) => self.request(key, *request, fds),
            Incoming::Nothing => self.update_interest(key),
            Incoming::Closed => self.disconnect(key),
        }
    }

    /// Execs go with the daemon that asked for them: what it held of their streams is closed. Those under way are seen
    /// to when they begin.
    fn disconnect(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(&key) {
            self.events.remove(key, connection.as_fd());
        }
        for executed in self.executed.iter_mut().filter(|executed| executed.connection == key) {
            executed.hung_up = true;
            executed.family.kill();
        }
    }

    fn update_interest(&mut self, key: Key) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let room = if connection.is_blocked() { EventFlags::OUT } else { EventFlags::empty() };
        if self.events.modify(key, connection.as_fd(), EventFlags::IN | room).is_err() {
            self.disconnect(key);
        }
    }

    /// Answers a request, if its connection is still there.
    pub fn answer(&mut self, reply: Reply, body: Body, fds: Vec<OwnedFd>) {
        self.send(reply.connection, &v1::Message { id: reply.id, body: Some(body) }, fds);
    }

    /// Tells every daemon that has said Hello.
    pub fn broadcast(&mut self, body: Body) {
        let message = v1::Message { id: 0, body: Some(body) };
        let greeted: Vec<_> =
            self.connections.iter().filter(|(_, c)| c.greeted).map(|(key, _)| *key).collect();
        greeted.into_iter().for_each(|key| self.send(key, &message, Vec::new()));
    }

    fn send(&mut self, key: Key, message: &v1::Message, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match connection.send(message, fds) {
            Ok(()) if connection.is_blocked() => self.update_interest(key),
            Ok(()) => {}
            Err(_) => self.disconnect(key),
        }
    }
}

/// Nanoseconds since the epoch.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
