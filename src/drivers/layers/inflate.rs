//! From compressed bytes to plain ones, and the pipe between the thread that inflates and the one that writes.
//! What does not live here: tar.

use std::io::{self, BufRead, Cursor, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use bytes::{Buf, Bytes};

use crate::drivers::digests::Stream;
use crate::ids::Digest;

/// Bytes in one buffer of the pipe.
const CHUNK: usize = 256 << 10;
/// Buffers on their way at once.
const DEPTH: usize = 4;
/// Largest window of zstd, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

type Chunk = io::Result<Bytes>;

/// The writing end: lives in the thread that inflates.
pub struct Inflater {
    chunks: SyncSender<Chunk>,
    used: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
}

/// The reading end: plain bytes, hashed on the way.
pub struct Inflated {
    chunks: Receiver<Chunk>,
    current: Bytes,
    hash: Stream,
    total: u64,
    check: Box<dyn FnMut(u64) -> io::Result<()>>,
}

/// Goes back to be filled again when it is written and hashed: fresh memory costs a page fault for each 4 KiB.
struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // The inflating thread may have ended already.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// A pipe with a bounded number of buffers, used again and again. `check` sees the number of plain bytes so far, and
/// can end it all.
pub fn pipe(hash: Stream, check: impl FnMut(u64) -> io::Result<()> + 'static) -> (Inflater, Inflated) {
    let (chunks, filled) = sync_channel(DEPTH);
    let (home, used) = channel();
    let inflated = Inflated { chunks: filled, current: Bytes::new(), hash, total: 0, check: Box::new(check) };
    (Inflater { chunks, used, home }, inflated)
}

impl Inflater {
    /// Inflates everything. An error goes through the pipe to the reader; a reader that is gone ends it.
    pub fn run(self, input: impl BufRead) {
        let result = plain(input).and_then(|mut plain| {
            loop {
                let mut bytes = self.used.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
                let len = fill(&mut plain, &mut bytes)?;
                let chunk = Bytes::from_owner(Buffer { bytes, len, home: self.home.clone() });
                if len == 0 || self.chunks.send(Ok(chunk)).is_err() {
                    break Ok(());
                }
            }
        });
        if let Err(error) = result {
            // Nobody to tell if the reader is gone.
            let _ = self.chunks.send(Err(error));
        }
    }
}

/// As many bytes as there are, up to the buffer's length.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// What the first bytes say counts: media types are often wrong about compression.
fn plain<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut head)?;
    let gzip = head.starts_with(GZIP);
    let skippable = head.len() == 4 && head[0] & 0xf0 == 0x50 && head[1..] == [0x2a, 0x4d, 0x18];
    let zstd = head == ZSTD || skippable;
    let whole = Read::chain(Cursor::new(head), input);
    if gzip {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

impl Inflated {
    /// The digest of everything read: the diff_id, once the end was seen.
    pub fn digest(self) -> Digest {
        self.hash.finish()
    }
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(buffer)?;
        self.consume(len);
        Ok(len)
    }
}

impl BufRead for Inflated {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            // What was there may be filled anew.
            self.current = Bytes::new();
            if let Ok(chunk) = self.chunks.recv() {
                self.current = chunk?;
                self.hash.update(self.current.clone());
                self.total += self.current.len() as u64;
                (self.check)(self.total)?;
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, len: usize) {
        self.current.advance(len);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::drivers::digests::Digests;

    fn through(bytes: &[u8]) -> io::Result<(Vec<u8>, Digest)> {
        let (inflater, mut inflated) = pipe(Digests::new().stream(), |_| Ok(()));
        std::thread::scope(|scope| {
            scope.spawn(move || inflater.run(bytes));
            let mut plain = Vec::new();
            inflated.read_to_end(&mut plain)?;
            Ok((plain, inflated.digest()))
        })
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_of_many_members_zstd_and_plain_bytes_come_out_the_same() {
        let plain: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let (left, right) = plain.split_at(1_000_001);
        let members = [gzip(left), gzip(right)].concat();
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        for form in [&plain, &members, &zstd] {
            let (bytes, digest) = through(form).unwrap();
            assert!(bytes == plain);
            assert_eq!(digest, Digest::of(&plain));
        }
        assert_eq!(through(b"").unwrap().0, b"");
    }

    #[test]
    fn a_cut_or_flipped_stream_is_an_error() {
        let whole = gzip(&[7; 100_000]);
        assert!(through(&whole[..whole.len() - 3]).is_err());
        let mut flipped = whole.clone();
        let crc = flipped.len() - 6;
        flipped[crc] ^= 1;
        assert!(through(&flipped).is_err());
        assert!(through(&[whole.as_slice(), b"junk"].concat()).is_err());
        let zstd = zstd::encode_all(&[7_u8; 100_000][..], 1).unwrap();
        assert!(through(&zstd[..zstd.len() - 3]).is_err());
    }
}
