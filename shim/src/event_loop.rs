//! epoll over an enum of sources. What a source's event means lives in server.rs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::log::Stream;

/// Names one registration. Never used again, so an event that comes after its source has gone finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

/// What became ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Listener,
    Signals,
    Connection,
    /// A spawn's status.
    Spawn,
    /// A pipe or terminal of a container.
    Output {
        container: String,
        stream: Stream,
    },
    /// The write end of a container's stdin has room.
    Stdin {
        container: String,
    },
    /// The stdin of an attached client.
    Typing {
        container: String,
    },
    /// An output of an attached client: room in it while the client is behind, else only its closing.
    Watching {
        container: String,
    },
}

/// All that the shim waits for.
pub struct EventLoop {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    last: u64,
}

impl EventLoop {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: BTreeMap::new(), last: 0 })
    }

    /// Waits for `fd` from now on. With no flags, only its closing by the other side is told.
    pub fn add(&mut self, fd: impl AsFd, source: Source, flags: EventFlags) -> io::Result<Key> {
        self.last += 1;
        epoll::add(&self.epoll, fd, EventData::new_u64(self.last), flags)?;
        self.sources.insert(self.last, source);
        Ok(Key(self.last))
    }

    /// Changes what is waited for.
    pub fn modify(&self, key: Key, fd: impl AsFd, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(key.0), flags)?)
    }

    /// Ends the wait. Call it before the descriptor is closed: a duplicate elsewhere would keep it registered.
    pub fn remove(&mut self, key: Key, fd: BorrowedFd<'_>) {
        if self.sources.remove(&key.0).is_some() {
            // The only failure is ENOENT, which is what is wanted.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Waits for at least one event, or until the timeout.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Key>> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        let timeout = timeout.map(|time| rustix::time::Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => Ok(events[..count].iter().map(|event| Key(event.data.u64())).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// What a key stands for, unless it was removed.
    pub fn source(&self, key: Key) -> Option<&Source> {
        self.sources.get(&key.0)
    }
}
