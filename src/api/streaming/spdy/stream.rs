//! What a session holds of a connection: the streams that the client opens, and their two ends.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::frame::{Frame, Status};
use super::headers::Headers;
use super::link::Link;
use crate::api::streaming::inbox::{Reader, Reset};
use crate::api::streaming::output::Output;

/// The streams of a connection, as the client opens them. Dropped: it may open no more, and the connection ends when the
/// writers are done.
pub struct Streams {
    pub(super) opened: mpsc::Receiver<Stream>,
    pub(super) link: Arc<Link>,
    /// Keeps the connection up while there is no stream.
    pub(super) _frames: mpsc::Sender<Frame>,
}

impl Streams {
    /// The next one; None when the connection has ended.
    pub async fn next(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// A stream that is opened and not yet answered.
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What it is for.
    pub headers: Headers,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl Stream {
    /// Welcomes it.
    pub async fn accept(self) -> Result<(Reader, Writer), Reset> {
        let reply = Frame::SynReply { stream: self.id, fin: false, headers: Headers::default() };
        self.writer.frames.send(reply).await.map_err(|_| Reset)?;
        Ok((self.reader, self.writer))
    }

    /// Sends it away.
    pub async fn refuse(self) {
        self.writer.reset(Status::REFUSED_STREAM).await;
    }
}

/// The way to the client.
pub struct Writer {
    pub(super) id: u32,
    pub(super) link: Arc<Link>,
    pub(super) frames: mpsc::Sender<Frame>,
}

impl Writer {
    /// Ends the stream both ways, once what was written before is sent.
    pub async fn reset(self, status: Status) {
        let _ = self.frames.send(Frame::Reset { stream: self.id, status }).await;
        self.link.reset(self.id);
    }
}

impl Output for Writer {
    const ENDS: bool = true;

    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Reset> {
        while !bytes.is_empty() {
            let granted = self.link.grant(self.id, bytes.len()).await?;
            let frame = Frame::Data { stream: self.id, fin: false, bytes: bytes.split_to(granted) };
            self.frames.send(frame).await.map_err(|_| Reset)?;
        }
        Ok(())
    }

    async fn finish(&mut self) {
        let _ = self.frames.send(Frame::Data { stream: self.id, fin: true, bytes: Bytes::new() }).await;
        self.link.sent_all(self.id);
    }
}
