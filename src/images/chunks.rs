//! A blob on its way from the network to the thread that unpacks it: not too many bytes at once, hashed as they arrive
//! there. What does not live here: where it comes from, what is in it.

use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drivers::digests::Stream;
use crate::drivers::layers::BlobCopy;
use crate::ids::Digest;

/// Bytes of one blob that wait. How many one read of a connection brings differs by two orders of magnitude.
const ROOM: u32 = 1 << 20;

struct Chunk {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// The network's end.
pub struct Feed {
    chunks: UnboundedSender<Chunk>,
    room: Arc<Semaphore>,
}

/// The end of a thread that may block.
pub struct Chunks {
    chunks: UnboundedReceiver<Chunk>,
    current: Chunk,
    hash: Stream,
    /// Gets all of them too.
    copy: Option<BlobCopy>,
}

/// Both ends.
pub fn feed(hash: Stream) -> (Feed, Chunks) {
    let (sender, receiver) = unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM as usize));
    let current = Chunk { bytes: Bytes::new(), _room: None };
    (Feed { chunks: sender, room }, Chunks { chunks: receiver, current, hash, copy: None })
}

impl Feed {
    /// Waits until there is room; at once if nobody receives any more.
    pub async fn send(&self, bytes: Bytes) {
        let len = u32::try_from(bytes.len()).unwrap_or(ROOM).min(ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(len).await.ok();
        let _ = self.chunks.send(Chunk { bytes, _room: room });
    }

    /// Whether all that was sent is read, too.
    pub fn is_drained(&self) -> bool {
        self.room.available_permits() == ROOM as usize
    }
}

impl Chunks {
    /// Where someone wants to keep all bytes as they came.
    pub fn copy_to(&mut self, copy: Option<BlobCopy>) {
        self.copy = copy;
    }

    /// Takes what is left, and tells the digest of all; with the copy, if it could be written.
    pub fn finish(mut self) -> (Digest, Option<BlobCopy>) {
        while self.advance() {}
        (self.hash.finish(), self.copy)
    }

    fn advance(&mut self) -> bool {
        // The room of what was read, before the next is waited for.
        self.current._room = None;
        let Some(chunk) = self.chunks.blocking_recv() else {
            return false;
        };
        self.hash.update(chunk.bytes.clone());
        // An image does without a copy that can't be written.
        if let Err(error) = self.copy.as_mut().map_or(Ok(()), |copy| copy.write_all(&chunk.bytes)) {
            tracing::warn!(%error, "a packed layer is not kept");
            self.copy = None;
        }
        self.current = chunk;
        true
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.fill_buf()?.read(buffer)?;
        self.consume(len);
        Ok(len)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.current.bytes.is_empty() && self.advance() {}
        Ok(&self.current.bytes)
    }

    fn consume(&mut self, len: usize) {
        self.current.bytes.advance(len);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drivers::digests::Digests;

    /// Five halves of all room there is, and one piece larger than that.
    async fn send_all(feed: Feed) {
        for _ in 0..5 {
            feed.send(vec![7; ROOM as usize / 2].into()).await;
        }
        feed.send(vec![8; ROOM as usize + 1].into()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_sends_waits_for_room_and_the_digest_is_of_all() {
        let (feed, mut chunks) = feed(Digests::new().stream());
        let sending = tokio::spawn(send_all(feed));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!sending.is_finished());
        let digest = tokio::task::spawn_blocking(move || {
            let mut start = vec![0; ROOM as usize];
            chunks.read_exact(&mut start).unwrap();
            assert!(start.iter().all(|byte| *byte == 7));
            chunks.finish().0
        });
        let all = [vec![7; ROOM as usize / 2 * 5], vec![8; ROOM as usize + 1]].concat();
        assert_eq!(digest.await.unwrap(), Digest::of(&all));
        sending.await.unwrap();
    }
}
