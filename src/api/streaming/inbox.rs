//! What has arrived for one stream of a connection and is not read yet. Bounded: the connection waits for room and reads
//! no further, and so the client waits. What does not live here: any wire format.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// Most bytes that wait in one stream.
pub const STREAM: usize = 256 << 10;
/// Most bytes that wait in all streams of a connection.
pub const CONNECTION: usize = 8 << 20;
/// Largest piece taken at once.
const PIECE: usize = 32 << 10;

/// The other side gave the stream up, or the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream was reset")]
pub struct Reset;

/// The room that all streams of one connection share.
#[derive(Default)]
pub struct Budget {
    used: AtomicUsize,
    freed: Notify,
}

impl Budget {
    fn free(&self, length: usize) {
        self.used.fetch_sub(length, Ordering::Relaxed);
        self.freed.notify_one();
    }
}

/// What to do when bytes have been read: tell the sender that it may send as many more.
pub type OnRead = Box<dyn Fn(usize) + Send + Sync>;

#[derive(Default)]
struct State {
    bytes: BytesMut,
    end: Option<Result<(), Reset>>,
    /// Nobody reads any more.
    discarded: bool,
}

struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    budget: Arc<Budget>,
    on_read: OnRead,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, length: usize) {
        if length > 0 {
            self.budget.free(length);
            (self.on_read)(length);
        }
    }
}

/// The connection's end.
pub struct Feeder(Arc<Inbox>);

/// The session's end. Dropped: what still comes is thrown away, and holds up nobody.
pub struct Reader(Arc<Inbox>);

/// An empty inbox.
pub fn inbox(budget: Arc<Budget>, on_read: OnRead) -> (Feeder, Reader) {
    let inbox = Arc::new(Inbox { state: Mutex::default(), arrived: Notify::new(), budget, on_read });
    (Feeder(inbox.clone()), Reader(inbox))
}

impl Feeder {
    /// Takes bytes, in pieces, each as soon as there is room. One task of a connection may wait here at a time.
    pub async fn feed(&self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            self.room().await;
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.push(&piece);
        }
    }

    async fn room(&self) {
        let budget = &self.0.budget;
        loop {
            {
                let state = self.0.state();
                let full = state.bytes.len() >= STREAM || budget.used.load(Ordering::Relaxed) >= CONNECTION;
                if state.discarded || state.end.is_some() || !full {
                    return;
                }
            }
            budget.freed.notified().await;
        }
    }

    fn push(&self, piece: &[u8]) {
        let mut state = self.0.state();
        if state.discarded || state.end.is_some() {
            drop(state);
            (self.0.on_read)(piece.len());
            return;
        }
        self.0.budget.used.fetch_add(piece.len(), Ordering::Relaxed);
        state.bytes.extend_from_slice(piece);
        drop(state);
        self.0.arrived.notify_one();
    }

    /// Nothing more will come.
    pub fn finish(&self) {
        self.end(Ok(()));
    }

    /// Whatever has not been read is void.
    pub fn reset(&self) {
        self.end(Err(Reset));
    }

    fn end(&self, end: Result<(), Reset>) {
        let mut state = self.0.state();
        // A reset voids even what was finished; what was reset stays so.
        if state.end.is_none() || end.is_err() {
            state.end = Some(end);
        }
        let void = if end.is_err() { std::mem::take(&mut state.bytes).len() } else { 0 };
        drop(state);
        self.0.release(void);
        self.0.arrived.notify_one();
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        let ended = self.0.state().end.is_some();
        if !ended {
            self.reset();
        }
    }
}

impl Reader {
    /// What has arrived; None at the end of the stream. Cancelling it loses nothing.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        loop {
            if let Some(read) = self.take() {
                return read;
            }
            self.0.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<Result<Option<Bytes>, Reset>> {
        let mut state = self.0.state();
        if state.bytes.is_empty() {
            return state.end.map(|end| end.map(|()| None));
        }
        let bytes = state.bytes.split().freeze();
        drop(state);
        self.0.release(bytes.len());
        Some(Ok(Some(bytes)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.discarded = true;
        let left = std::mem::take(&mut state.bytes).len();
        drop(state);
        self.0.release(left);
        self.0.budget.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pair(budget: &Arc<Budget>) -> (Feeder, Reader) {
        inbox(budget.clone(), Box::new(|_| ()))
    }

    #[tokio::test]
    async fn a_full_stream_makes_the_connection_wait() {
        let budget = Arc::new(Budget::default());
        let (feeder, mut reader) = pair(&budget);
        let feeding = tokio::spawn(async move {
            feeder.feed(Bytes::from(vec![7; 4 * STREAM])).await;
            feeder.finish();
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!feeding.is_finished());
        assert!(budget.used.load(Ordering::Relaxed) < STREAM + PIECE);
        let mut total = 0;
        while let Some(bytes) = reader.read().await.unwrap() {
            total += bytes.len();
        }
        assert_eq!(total, 4 * STREAM);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_holds_up_nobody() {
        let budget = Arc::new(Budget::default());
        let (feeder, reader) = pair(&budget);
        let feeding = tokio::spawn(async move { feeder.feed(Bytes::from(vec![7; 4 * STREAM])).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(reader);
        tokio::time::timeout(Duration::from_secs(10), feeding).await.unwrap().unwrap();
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_finished_stream_is_read_to_its_end_and_a_reset_one_is_not() {
        let budget = Arc::new(Budget::default());
        let (feeder, mut reader) = pair(&budget);
        feeder.feed(Bytes::from_static(b"last words")).await;
        feeder.finish();
        drop(feeder);
        assert_eq!(reader.read().await, Ok(Some(Bytes::from_static(b"last words"))));
        assert_eq!(reader.read().await, Ok(None));

        let (feeder, mut reader) = pair(&budget);
        feeder.feed(Bytes::from_static(b"void")).await;
        drop(feeder);
        assert_eq!(reader.read().await, Err(Reset));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_streams_of_a_connection_share_its_room() {
        let budget = Arc::new(Budget::default());
        let streams: Vec<_> = (0..2 * CONNECTION / STREAM).map(|_| pair(&budget)).collect();
        let filling = async {
            for (feeder, _) in &streams {
                feeder.feed(Bytes::from(vec![1; STREAM])).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(100), filling).await.is_err());
        assert!(budget.used.load(Ordering::Relaxed) < CONNECTION + PIECE);
    }

    #[tokio::test]
    async fn what_was_read_or_thrown_away_is_told() {
        let told = Arc::new(AtomicUsize::new(0));
        let teller = told.clone();
        let count = move |length| {
            teller.fetch_add(length, Ordering::Relaxed);
        };
        let (feeder, mut reader) = inbox(Arc::default(), Box::new(count));
        feeder.feed(Bytes::from_static(b"abc")).await;
        reader.read().await.unwrap();
        feeder.feed(Bytes::from_static(b"de")).await;
        drop(reader);
        feeder.feed(Bytes::from_static(b"f")).await;
        assert_eq!(told.load(Ordering::Relaxed), 6);
    }
}
