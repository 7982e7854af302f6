//! The client's side of SPDY, for tests alone.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{Decoder, Encoder, Frame, Status};
use super::headers::Headers;

/// A connection.
pub struct Client<T> {
    io: T,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
    next: u32,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    pub fn new(io: T) -> Self {
        let (encoder, decoder) = (Encoder::new(), Decoder::new());
        Self { io, encoder, decoder, buffer: BytesMut::new(), next: 1 }
    }

    pub async fn send(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        self.encoder.put(&frame, &mut out).unwrap();
        self.io.write_all(&out).await.unwrap();
    }

    /// Opens a stream.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let headers: Headers = headers.iter().copied().collect();
        self.send(Frame::SynStream { stream, fin: false, headers }).await;
        stream
    }

    pub async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        self.send(Frame::Data { stream, fin, bytes: Bytes::copy_from_slice(bytes) }).await;
    }

    pub async fn reset(&mut self, stream: u32) {
        self.send(Frame::Reset { stream, status: Status::CANCEL }).await;
    }

    /// The next frame; None at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The next frame that is no window update.
    pub async fn next_said(&mut self) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(Frame::WindowUpdate { .. }) => {}
                frame => return frame,
            }
        }
    }

    /// All data of a stream up to its end; everything else is passed over.
    pub async fn read_to_end(&mut self, stream: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Some(Frame::Data { stream: of, fin, bytes }) if of == stream => {
                    all.extend_from_slice(&bytes);
                    if fin {
                        return all;
                    }
                }
                Some(Frame::Reset { stream: of, .. }) if of == stream => panic!("stream {stream} was reset"),
                Some(_) => {}
                None => panic!("the connection ended before stream {stream}"),
            }
        }
    }

    pub fn into_io(self) -> T {
        self.io
    }
}
