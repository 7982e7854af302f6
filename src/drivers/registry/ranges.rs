//! A large blob over several connections, where one alone is slow and the host serves ranges. What does not live here:
//! one connection's bytes (blob).
//!
//! It begins with one connection, as every blob. Only when its reader says that it was idle for want of bytes are pieces
//! from further on asked for; a link that is faster than layers are unpacked never pays for them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::Registry;
use super::blob::{Blob, BlobStream};
use super::error::RegistryError;
use crate::activity;
use crate::error::chain;

/// Bytes in one piece: long beside the way to a host and back, short beside the memory of a node.
const PIECE: u64 = 4 << 20;
/// Pieces in memory at most, in the whole daemon: 32 MiB.
const PIECES_MAX: usize = 8;
/// With less to come, one connection is as good.
const WORTHWHILE: u64 = 4 * PIECE;
/// Bytes a second that leave unpacking behind.
const FAST: f64 = (64 << 20) as f64;
/// For how long the reader is idle before one connection is judged.
const TRIAL: Duration = Duration::from_secs(1);

pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PIECES_MAX))
}

/// A piece that is on its way, or here.
struct Piece {
    range: Range<u64>,
    fetch: Fetch,
    room: OwnedSemaphorePermit,
}

/// Ends with its guard.
struct Fetch(JoinHandle<Result<VecDeque<Bytes>, RegistryError>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Bytes of a blob from an offset to its end, in their order.
pub struct Download {
    registry: Registry,
    blob: Blob,
    /// Who sends.
    host: String,
    position: u64,
    /// The one connection, which goes on until a piece from further on has come.
    stream: Option<BlobStream>,
    /// What it gave beyond the first piece's begin: wanted if that piece does not come.
    spare: Bytes,
    /// In their order; the first one begins where the stream's turn ends.
    ahead: VecDeque<Piece>,
    /// Of a piece that has come, and its room.
    current: VecDeque<Bytes>,
    held: Option<OwnedSemaphorePermit>,
    /// What came, and for how long the reader was idle meanwhile, since the stream was last judged.
    came: u64,
    idle: Duration,
    /// Pieces were refused: one connection has to do.
    alone: bool,
    failed: bool,
}

impl Download {
    pub(super) async fn open(registry: Registry, blob: Blob, offset: u64) -> Result<Self, RegistryError> {
        let stream = BlobStream::open(registry.clone(), blob.clone(), offset).await?;
        Ok(Self {
            alone: registry.config().connections < 2,
            registry,
            blob,
            host: stream.host().to_string(),
            position: offset,
            stream: Some(stream),
            spare: Bytes::new(),
            ahead: VecDeque::new(),
            current: VecDeque::new(),
            held: None,
            came: 0,
            idle: Duration::ZERO,
            failed: false,
        })
    }

    /// The next bytes; none at the end, when exactly the blob's size was given. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        if self.failed {
            return None;
        }
        let result = self.advance().await;
        self.failed = matches!(result, Some(Err(_)));
        result
    }

    async fn advance(&mut self) -> Option<Result<Bytes, RegistryError>> {
        loop {
            if let Some(chunk) = self.current.pop_front() {
                self.position += chunk.len() as u64;
                return Some(Ok(chunk));
            }
            self.held = None;
            let turn = self.ahead.front().map_or(self.blob.size, |piece| piece.range.start);
            if let Some(stream) =
                self.stream.as_mut().filter(|_| self.ahead.is_empty() || self.position < turn)
            {
                return match stream.next().await {
                    Some(Ok(chunk)) => Some(Ok(self.take(chunk, turn))),
                    other => other,
                };
            }
            if self.position == self.blob.size {
                return None;
            }
            if let Err(error) = self.turn_over().await {
                return Some(Err(error));
            }
        }
    }

    /// What the stream gave, up to where its turn ends.
    fn take(&mut self, mut chunk: Bytes, turn: u64) -> Bytes {
        let left = usize::try_from(turn - self.position).unwrap_or(usize::MAX);
        self.spare = chunk.split_off(left.min(chunk.len()));
        self.position += chunk.len() as u64;
        chunk
    }

    /// Of the wait for the last `bytes`, its reader had nothing to do for so long. Where it always has, more connections
    /// would bring nothing.
    pub fn note_idle(&mut self, bytes: usize, idle: Duration) {
        self.came += bytes as u64;
        self.idle += idle;
        if self.idle < TRIAL {
            return;
        }
        let slow = (self.came as f64) < FAST * self.idle.as_secs_f64();
        (self.came, self.idle) = (0, Duration::ZERO);
        let worthwhile = self.blob.size - self.position >= WORTHWHILE;
        if let Some(stream) = self.stream.as_ref().filter(|_| slow && worthwhile && self.ahead.is_empty()) {
            self.host = stream.host().to_string();
            tracing::debug!(blob = %self.blob.digest, host = self.host, "the link is slow: asking for ranges");
            self.ask_ahead(self.position + PIECE);
        }
    }

    /// Asks for pieces from `from` on, as many as there is room for.
    fn ask_ahead(&mut self, mut from: u64) {
        let streams = usize::from(self.stream.is_some());
        let most = usize::try_from(self.registry.config().connections).unwrap_or(usize::MAX);
        while !self.alone && self.ahead.len() + streams < most && from < self.blob.size {
            let Ok(room) = self.registry.shared().pieces.clone().try_acquire_owned() else { break };
            let range = from..(from + PIECE).min(self.blob.size);
            from = range.end;
            let (registry, blob, host) = (self.registry.clone(), self.blob.clone(), self.host.clone());
            let part = BlobStream::open_part(registry, blob, range.clone(), host);
            let fetch = activity::part(activity::current_verb(), async move { all(part.await?).await });
            let fetch = Fetch(tokio::spawn(fetch.in_current_span()));
            self.ahead.push_back(Piece { range, fetch, room });
        }
    }

    /// The stream's turn has ended, or that of the last piece that there was room for.
    async fn turn_over(&mut self) -> Result<(), RegistryError> {
        let Some(Piece { range, mut fetch, room }) = self.ahead.pop_front() else {
            return self.reopen().await;
        };
        match (&mut fetch.0).await {
            Ok(Ok(chunks)) => {
                (self.stream, self.spare) = (None, Bytes::new());
                (self.current, self.held) = (chunks, Some(room));
                self.ask_ahead(self.ahead.back().map_or(range.end, |last| last.range.end));
                Ok(())
            }
            refused => {
                let error = refused.ok().and_then(Result::err);
                let error = error.map_or("interrupted".to_string(), |error| chain(&error).to_string());
                tracing::debug!(host = self.host, error, "a range was not given; one connection has to do");
                self.alone = true;
                self.ahead.clear();
                match &self.stream {
                    Some(_) => self.current.push_back(std::mem::take(&mut self.spare)),
                    None => self.reopen().await?,
                }
                Ok(())
            }
        }
    }

    async fn reopen(&mut self) -> Result<(), RegistryError> {
        let stream = BlobStream::open(self.registry.clone(), self.blob.clone(), self.position).await?;
        self.stream = Some(stream);
        Ok(())
    }
}

async fn all(mut stream: BlobStream) -> Result<VecDeque<Bytes>, RegistryError> {
    let mut chunks = VecDeque::new();
    while let Some(chunk) = stream.next().await {
        chunks.push_back(chunk?);
    }
    Ok(chunks)
}
