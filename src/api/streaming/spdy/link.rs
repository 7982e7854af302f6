//! What the loops and the streams of one connection share: the streams' table, the windows, the credits that are due.
//! What does not live here: reading and writing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frame::{Status, WINDOW};
use crate::api::streaming::inbox::{Budget, Feeder, Reset};

/// Most streams open at once: a thousand forwarded connections, of two streams each, and some.
pub const STREAMS: usize = 2048;
/// Every window at the start of a connection (section 2.6.8).
const INITIAL: i64 = 64 << 10;
/// Bytes read before the client is told that it may send as many more.
const CREDIT: u32 = 32 << 10;
/// Largest data frame that we send.
const PIECE: usize = 32 << 10;
/// All streams together, in window updates.
const SESSION: u32 = 0;

/// How much the client takes.
struct Window {
    left: i64,
    /// It has shown that it counts.
    heeded: bool,
}

impl Window {
    fn room(&self) -> usize {
        if self.heeded { usize::try_from(self.left).unwrap_or(0) } else { usize::MAX }
    }
}

struct Entry {
    feeder: Arc<Feeder>,
    left: i64,
    widened: Arc<Notify>,
    sent_all: bool,
    received_all: bool,
}

struct Table {
    streams: HashMap<u32, Entry>,
    /// The last stream that the client has opened.
    last: u32,
    /// No further stream is taken.
    closed: bool,
    session: Window,
    /// Of new streams, and whether those of streams count.
    streams_window: Window,
}

/// One connection.
pub struct Link {
    table: Mutex<Table>,
    credits: Mutex<HashMap<u32, u32>>,
    credits_due: Notify,
    budget: Arc<Budget>,
}

impl Link {
    /// Without streams.
    pub fn new() -> Self {
        let table = Table {
            streams: HashMap::new(),
            last: 0,
            closed: false,
            session: Window { left: INITIAL, heeded: false },
            streams_window: Window { left: INITIAL, heeded: false },
        };
        Self {
            table: Mutex::new(table),
            credits: Mutex::default(),
            credits_due: Notify::new(),
            budget: Arc::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credits(&self) -> MutexGuard<'_, HashMap<u32, u32>> {
        self.credits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The room that the streams' inboxes share.
    pub fn budget(&self) -> Arc<Budget> {
        self.budget.clone()
    }

    /// Takes a stream that the client opens.
    pub fn open(&self, id: u32, feeder: Feeder) -> Result<(), Status> {
        let mut table = self.table();
        if id <= table.last || id.is_multiple_of(2) {
            return Err(Status::PROTOCOL_ERROR);
        }
        table.last = id;
        if table.closed || table.streams.len() >= STREAMS {
            return Err(Status::REFUSED_STREAM);
        }
        let left = table.streams_window.left;
        let feeder = Arc::new(feeder);
        let entry = Entry { feeder, left, widened: Arc::default(), sent_all: false, received_all: false };
        table.streams.insert(id, entry);
        Ok(())
    }

    /// From here on no stream is taken.
    pub fn close(&self) {
        self.table().closed = true;
    }

    /// The last stream that was looked at.
    pub fn last(&self) -> u32 {
        self.table().last
    }

    /// Where a stream's bytes go.
    pub fn feeder(&self, id: u32) -> Option<Arc<Feeder>> {
        self.table().streams.get(&id).map(|entry| entry.feeder.clone())
    }

    /// The client sends nothing more on this stream.
    pub fn received_all(&self, id: u32) {
        self.half_close(id, |entry| {
            entry.received_all = true;
            entry.feeder.finish();
        });
    }

    /// We send nothing more on this stream.
    pub fn sent_all(&self, id: u32) {
        self.half_close(id, |entry| entry.sent_all = true);
    }

    fn half_close(&self, id: u32, close: impl FnOnce(&mut Entry)) {
        let mut table = self.table();
        let Some(entry) = table.streams.get_mut(&id) else {
            return;
        };
        close(entry);
        if entry.sent_all && entry.received_all {
            table.streams.remove(&id);
        }
    }

    /// The stream is over, both ways.
    pub fn reset(&self, id: u32) {
        let entry = self.table().streams.remove(&id);
        if let Some(entry) = entry {
            entry.feeder.reset();
            entry.widened.notify_one();
        }
    }

    /// The connection is over.
    pub fn end(&self) {
        let streams = {
            let mut table = self.table();
            table.closed = true;
            std::mem::take(&mut table.streams)
        };
        for entry in streams.into_values() {
            entry.feeder.reset();
            entry.widened.notify_one();
        }
    }

    /// How many of `wanted` bytes may be sent now; waits until it is one at least.
    pub async fn grant(&self, id: u32, wanted: usize) -> Result<usize, Reset> {
        loop {
            let widened = {
                let mut table = self.table();
                let session = table.session.room();
                let heeded = table.streams_window.heeded;
                let entry = table.streams.get_mut(&id).ok_or(Reset)?;
                let room = Window { left: entry.left, heeded }.room().min(session);
                let granted = wanted.min(PIECE).min(room);
                if granted > 0 {
                    entry.left -= granted as i64;
                    table.session.left -= granted as i64;
                    return Ok(granted);
                }
                entry.widened.clone()
            };
            widened.notified().await;
        }
    }

    /// The client takes so many bytes more; false if that is more than a window can be.
    pub fn widen(&self, id: u32, delta: u32) -> bool {
        let mut table = self.table();
        if id == SESSION {
            table.session.heeded = true;
            table.session.left += i64::from(delta);
            table.streams.values().for_each(|entry| entry.widened.notify_one());
            return table.session.left <= i64::from(WINDOW);
        }
        table.streams_window.heeded = true;
        let Some(entry) = table.streams.get_mut(&id) else {
            return true;
        };
        entry.left += i64::from(delta);
        entry.widened.notify_one();
        entry.left <= i64::from(WINDOW)
    }

    /// The window of new streams; those of open ones move with it (section 2.6.8).
    pub fn set_initial_window(&self, window: u32) {
        let mut table = self.table();
        let moved = i64::from(window) - table.streams_window.left;
        table.streams_window = Window { left: i64::from(window), heeded: true };
        for entry in table.streams.values_mut() {
            entry.left += moved;
            entry.widened.notify_one();
        }
    }

    /// Bytes of a stream were read, or thrown away.
    pub fn credit(&self, id: u32, length: usize) {
        self.add_credit(&[id, SESSION], length);
    }

    /// Bytes of a stream that is gone were thrown away: they count for all streams together alone.
    pub fn credit_lost(&self, length: usize) {
        self.add_credit(&[SESSION], length);
    }

    fn add_credit(&self, ids: &[u32], length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if length == 0 {
            return;
        }
        let mut credits = self.credits();
        let mut due = false;
        for id in ids {
            let credit = credits.entry(*id).or_default();
            *credit = credit.saturating_add(length);
            due |= *credit >= CREDIT;
        }
        drop(credits);
        if due {
            self.credits_due.notify_one();
        }
    }

    #[cfg(test)]
    pub fn credited(&self) -> usize {
        self.credits().len()
    }

    /// Waits for credits worth a frame, and takes them: streams, 0 for all together, and bytes.
    pub async fn credits_due(&self) -> Vec<(u32, u32)> {
        loop {
            self.credits_due.notified().await;
            let table = self.table();
            let mut due = Vec::new();
            self.credits().retain(|id, credit| {
                let counts = *id == SESSION || table.streams.get(id).is_some_and(|entry| !entry.received_all);
                if counts && *credit >= CREDIT {
                    due.push((*id, (*credit).min(WINDOW)));
                    *credit = 0;
                }
                counts && *credit > 0
            });
            drop(table);
            if !due.is_empty() {
                return due;
            }
        }
    }
}
