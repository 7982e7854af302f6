//! A layer that arrives slowly is kept as it comes, and its next pull goes on where this one was cut short. What does
//! not live here: the file itself (drivers/layers/spool).
//!
//! Nothing is written twice where the network is fast: it would cost more than to fetch a layer again. A slow link
//! leaves the disk idle, and is what a pull must not start all over on. Which one it is shows in the first bytes.

use std::time::Duration;

use bytes::Bytes;

use super::manifest::Descriptor;
use crate::drivers::layers::{Layers, Spool};
use crate::error::chain;
use crate::ids::Digest;
use crate::telemetry;

/// Smaller blobs are fetched anew.
const LARGE: u64 = 8 << 20;
/// Bytes written at once.
const BATCH: usize = 1 << 20;
/// The link is judged when so many bytes have come, or the reader was idle for so long.
const TRIAL: (usize, Duration) = (4 << 20, Duration::from_millis(250));
/// Bytes a second from which a link is fast.
const FAST: f64 = (16 << 20) as f64;
/// Bytes read at once.
const READ: usize = 256 << 10;

/// What is kept of one blob.
pub(super) struct Resume {
    layers: Layers,
    blob: Digest,
    /// Begins with the blob's first byte, and goes on where `pending` begins.
    spool: Option<Spool>,
    pending: Vec<Bytes>,
    pending_len: usize,
    /// What came, and for how long the layer's reader was idle meanwhile.
    came: u64,
    idle: Duration,
    /// Nothing more is kept.
    over: bool,
}

impl Resume {
    /// Finds what an earlier pull left.
    pub(super) async fn open(layers: &Layers, blob: &Descriptor) -> Self {
        let mut resume = Self {
            layers: layers.clone(),
            blob: blob.digest.clone(),
            spool: None,
            pending: Vec::new(),
            pending_len: 0,
            came: 0,
            idle: Duration::ZERO,
            over: blob.size < LARGE,
        };
        if !resume.over {
            resume.spool = resume.find(false).await;
        }
        let too_long = resume.spool.as_ref().is_some_and(|spool| spool.len() > blob.size);
        if too_long {
            resume.discard().await;
        }
        resume
    }

    /// Whether an earlier pull left something.
    pub(super) fn has_bytes(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| !spool.is_empty())
    }

    /// What is kept at an offset; none where that ends.
    pub(super) async fn read(&mut self, offset: u64) -> Option<Bytes> {
        let spool = self.spool.take()?;
        let work = telemetry::blocking(move || (spool.read(offset, READ), spool));
        let (read, spool) = work.await.ok()?;
        self.spool = Some(spool);
        match read {
            Ok(bytes) => Some(bytes).filter(|bytes| !bytes.is_empty()),
            Err(error) => {
                tracing::debug!(blob = %self.blob, %error, "a spool cannot be read");
                self.discard().await;
                None
            }
        }
    }

    /// Takes what came, and for how long its reader had nothing to do meanwhile.
    pub(super) async fn add(&mut self, chunk: &Bytes, idle: Duration) {
        if self.over {
            return;
        }
        self.pending.push(chunk.clone());
        self.pending_len += chunk.len();
        self.came += chunk.len() as u64;
        self.idle += idle;
        let due = match &self.spool {
            Some(_) => self.pending_len >= BATCH,
            None => self.pending_len >= TRIAL.0 || self.idle >= TRIAL.1,
        };
        if !due {
            return;
        }
        let chunks = std::mem::take(&mut self.pending);
        self.pending_len = 0;
        let slow = (self.came as f64) < FAST * self.idle.as_secs_f64();
        self.over = !slow || !self.write(chunks).await;
    }

    async fn write(&mut self, chunks: Vec<Bytes>) -> bool {
        if self.spool.is_none() {
            self.spool = self.find(true).await;
            tracing::debug!(blob = %self.blob, "the link is slow: what comes is kept");
        }
        let Some(mut spool) = self.spool.take() else { return false };
        let work = telemetry::blocking(move || (spool.add(&chunks), spool));
        let Ok((added, spool)) = work.await else { return false };
        self.spool = Some(spool);
        added.unwrap_or_else(|error| {
            tracing::debug!(blob = %self.blob, %error, "a spool cannot be written");
            false
        })
    }

    async fn find(&self, make: bool) -> Option<Spool> {
        let (layers, blob) = (self.layers.clone(), self.blob.clone());
        let found = telemetry::blocking(move || layers.spool(&blob, make)).await.ok()?;
        found.unwrap_or_else(|error| {
            tracing::debug!(blob = %self.blob, error = chain(&error), "a spool cannot be opened");
            None
        })
    }

    /// Nobody will want it any more, or it is wrong. From here on nothing is kept.
    pub(super) async fn discard(&mut self) {
        self.over = true;
        if let Some(spool) = self.spool.take() {
            let _ = telemetry::blocking(move || spool.discard()).await;
        }
    }
}
