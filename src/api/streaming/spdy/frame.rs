//! Frames of SPDY/3.1 as bytes. Decoding takes what is there and asks for no more memory than one control frame may
//! have; data passes in pieces as it comes. What does not live here: streams, and what a frame does to them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, HeaderError, Headers, Inflater};

/// Largest payload of a control frame that is taken.
pub const CONTROL: usize = 64 << 10;
/// What a window may be at most (section 2.6.8).
pub const WINDOW: u32 = i32::MAX as u32;

const VERSION: u16 = 3;
const HEAD: usize = 8;
const FIN: u8 = 1;
const ID: u32 = 0x7fff_ffff;
const INITIAL_WINDOW_SIZE: u32 = 7;

mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream ends before its time (section 2.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Against the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Not wanted, and nothing was done with it.
    pub const REFUSED_STREAM: Self = Self(3);
    /// No longer wanted.
    pub const CANCEL: Self = Self(5);
    /// More than the window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(7);
}

/// A frame, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    SynStream {
        /// Odd where the client opens it.
        stream: u32,
        /// Nothing more follows.
        fin: bool,
        /// What it is for.
        headers: Headers,
    },
    /// The stream is welcome.
    SynReply {
        /// Which.
        stream: u32,
        /// Nothing more follows.
        fin: bool,
        /// Further words.
        headers: Headers,
    },
    /// The stream is over, both ways.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        status: Status,
    },
    /// Of the settings, only the initial window matters here.
    Settings {
        /// Bytes that each new stream may carry before a window update.
        initial_window: Option<u32>,
    },
    /// Wants the same back.
    Ping(u32),
    /// The sender opens nothing more, and takes nothing more.
    GoAway {
        /// The last stream that the sender has looked at.
        last: u32,
        /// 0: in order; 1: protocol error; 2: internal error.
        status: u32,
    },
    /// Further headers of a stream.
    Headers {
        /// Which.
        stream: u32,
        /// Nothing more follows.
        fin: bool,
        /// Them.
        headers: Headers,
    },
    /// So many bytes more may be sent.
    WindowUpdate {
        /// Which; 0: all streams together (SPDY/3.1).
        stream: u32,
        /// From 1 to 2^31 - 1.
        delta: u32,
    },
    /// Bytes of a stream: a frame, or a part of it. `fin` comes with the last part only.
    Data {
        /// Which.
        stream: u32,
        /// Nothing more follows.
        fin: bool,
        /// At most 2^24 - 1 bytes.
        bytes: Bytes,
    },
}

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another protocol.
    #[error("a frame is of SPDY version {0}, not {VERSION}")]
    Version(u16),
    /// A frame that no client needs.
    #[error("a control frame of {0} bytes is larger than {CONTROL}")]
    TooLarge(usize),
    /// A length that this type of frame can't have.
    #[error("a control frame of type {kind} can not have {length} bytes")]
    Length {
        /// Its type.
        kind: u16,
        /// Of its payload.
        length: usize,
    },
    /// A value that is forbidden.
    #[error("a control frame of type {0} has a forbidden value")]
    Value(u16),
    /// Headers.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

/// Bytes to frames.
pub struct Decoder {
    inflater: Inflater,
    /// Of the data frame under way.
    data: Option<(u32, bool, usize)>,
    /// Of an unknown control frame.
    skip: usize,
}

impl Decoder {
    /// At the start of a connection.
    pub fn new() -> Self {
        Self { inflater: Inflater::new(), data: None, skip: 0 }
    }

    /// The next frame, taken out of the input; None if the input has no whole one.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            let skipped = self.skip.min(input.len());
            input.advance(skipped);
            self.skip -= skipped;
            if let Some((stream, fin, left)) = self.data {
                return Ok(self.data_piece(input, stream, fin, left));
            }
            let Some(mut head) = input.get(..HEAD) else {
                return Ok(None);
            };
            let (word, tail) = (head.get_u32(), head.get_u32());
            let (flags, length) = ((tail >> 24) as u8, (tail & 0x00ff_ffff) as usize);
            if word & !ID == 0 {
                input.advance(HEAD);
                self.data = Some((word, flags & FIN != 0, length));
                continue;
            }
            let (version, kind) = ((word >> 16) as u16 & 0x7fff, word as u16);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > CONTROL {
                return Err(FrameError::TooLarge(length));
            }
            if !is_known(kind) {
                input.advance(HEAD);
                self.skip = length;
                continue;
            }
            if input.len() < HEAD + length {
                return Ok(None);
            }
            input.advance(HEAD);
            let payload = input.split_to(length).freeze();
            return self.control(kind, flags, &payload).map(Some);
        }
    }

    fn data_piece(&mut self, input: &mut BytesMut, stream: u32, fin: bool, left: usize) -> Option<Frame> {
        if input.is_empty() && left > 0 {
            return None;
        }
        let bytes = input.split_to(left.min(input.len())).freeze();
        let left = left - bytes.len();
        self.data = (left > 0).then_some((stream, fin, left));
        Some(Frame::Data { stream, fin: fin && left == 0, bytes })
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: &[u8]) -> Result<Frame, FrameError> {
        let length = payload.len();
        let wrong = FrameError::Length { kind, length };
        let fits = match kind {
            kind::SYN_STREAM => length >= 10,
            kind::SYN_REPLY | kind::HEADERS => length >= 4,
            kind::PING => length == 4,
            kind::SETTINGS => length >= 4 && (length - 4).is_multiple_of(8),
            _ => length == 8,
        };
        let word = payload.try_get_u32().map_err(|_| wrong)?;
        if !fits {
            return Err(wrong);
        }
        let (stream, fin) = (word & ID, flags & FIN != 0);
        let frame = match kind {
            kind::SYN_STREAM => {
                // The stream it belongs to, its priority and a slot for credentials say nothing to us.
                let headers = self.inflater.read(payload.get(6..).unwrap_or_default())?;
                Frame::SynStream { stream, fin, headers }
            }
            kind::SYN_REPLY => Frame::SynReply { stream, fin, headers: self.inflater.read(payload)? },
            kind::HEADERS => Frame::Headers { stream, fin, headers: self.inflater.read(payload)? },
            kind::PING => return Ok(Frame::Ping(word)),
            kind::SETTINGS => return settings(word, payload).ok_or(wrong),
            kind::RST_STREAM => Frame::Reset { stream, status: Status(payload.get_u32()) },
            kind::GOAWAY => return Ok(Frame::GoAway { last: stream, status: payload.get_u32() }),
            _ => return window_update(stream, payload.get_u32()),
        };
        // Streams count from 1.
        if stream == 0 { Err(FrameError::Value(kind)) } else { Ok(frame) }
    }
}

fn is_known(kind: u16) -> bool {
    matches!(
        kind,
        kind::SYN_STREAM
            | kind::SYN_REPLY
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            | kind::HEADERS
            | kind::WINDOW_UPDATE
    )
}

/// None if the number of settings is not what the frame holds.
fn settings(count: u32, mut payload: &[u8]) -> Option<Frame> {
    if count as usize != payload.len() / 8 {
        return None;
    }
    let mut initial_window = None;
    while payload.len() >= 8 {
        let (id, value) = (payload.get_u32() & 0x00ff_ffff, payload.get_u32());
        if id == INITIAL_WINDOW_SIZE {
            initial_window = Some(value.min(WINDOW));
        }
    }
    Some(Frame::Settings { initial_window })
}

fn window_update(stream: u32, delta: u32) -> Result<Frame, FrameError> {
    match delta & ID {
        0 => Err(FrameError::Value(kind::WINDOW_UPDATE)),
        delta => Ok(Frame::WindowUpdate { stream, delta }),
    }
}

/// Frames to bytes.
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// At the start of a connection.
    pub fn new() -> Self {
        Self { deflater: Deflater::new() }
    }

    /// Appends a frame.
    pub fn put(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), HeaderError> {
        match frame {
            Frame::Data { stream, fin, bytes } => {
                out.put_u32(stream & ID);
                put_length(*fin, bytes.len(), out);
                out.put_slice(bytes);
            }
            Frame::SynStream { stream, fin, headers } => {
                self.put_headers(kind::SYN_STREAM, (*stream, *fin), headers, out)?;
            }
            Frame::SynReply { stream, fin, headers } => {
                self.put_headers(kind::SYN_REPLY, (*stream, *fin), headers, out)?;
            }
            Frame::Headers { stream, fin, headers } => {
                self.put_headers(kind::HEADERS, (*stream, *fin), headers, out)?;
            }
            Frame::Reset { stream, status } => put_words(kind::RST_STREAM, &[*stream, status.0], out),
            Frame::Settings { initial_window: None } => put_words(kind::SETTINGS, &[0], out),
            Frame::Settings { initial_window: Some(window) } => {
                put_words(kind::SETTINGS, &[1, INITIAL_WINDOW_SIZE, *window], out);
            }
            Frame::Ping(id) => put_words(kind::PING, &[*id], out),
            Frame::GoAway { last, status } => put_words(kind::GOAWAY, &[*last, *status], out),
            Frame::WindowUpdate { stream, delta } => put_words(kind::WINDOW_UPDATE, &[*stream, *delta], out),
        }
        Ok(())
    }

    fn put_headers(
        &mut self,
        kind: u16,
        (stream, fin): (u32, bool),
        headers: &Headers,
        out: &mut BytesMut,
    ) -> Result<(), HeaderError> {
        put_kind(kind, out);
        let length_at = out.len();
        put_length(fin, 0, out);
        let payload_at = out.len();
        out.put_u32(stream);
        if kind == kind::SYN_STREAM {
            out.put_slice(&[0; 6]);
        }
        self.deflater.write(headers, out)?;
        let length = (out.len() - payload_at) as u32;
        // The flags stay in the first byte.
        out[length_at + 1..payload_at].copy_from_slice(&length.to_be_bytes()[1..]);
        Ok(())
    }
}

fn put_kind(kind: u16, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
}

fn put_length(fin: bool, length: usize, out: &mut BytesMut) {
    out.put_u8(u8::from(fin));
    out.put_uint(length as u64, 3);
}

fn put_words(kind: u16, words: &[u32], out: &mut BytesMut) {
    put_kind(kind, out);
    put_length(false, words.len() * 4, out);
    words.iter().for_each(|word| out.put_u32(*word));
}

#[cfg(test)]
mod tests;
