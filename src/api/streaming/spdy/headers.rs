//! Header blocks: names and values, and their compression, one zlib stream for the life of the connection each way
//! (SPDY/3 specification, section 2.6.10). What does not live here: what a header means.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// Most bytes of an uncompressed header block.
pub const BLOCK: usize = 64 << 10;
/// Most headers in a block.
pub const COUNT: usize = 128;

/// What is wrong with a header block. The connection can't go on: the zlib stream is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not what zlib makes.
    #[error("a header block is not compressed as it should be")]
    Zlib,
    /// Too much.
    #[error("a header block is larger than {BLOCK} bytes")]
    TooLarge,
    /// Too many.
    #[error("a header block has more than {COUNT} headers")]
    TooMany,
    /// A length that leads out of the block, or bytes behind the last header.
    #[error("a length in a header block does not fit the block")]
    Length,
    /// Empty, not lower-case, or not text.
    #[error("a header's name or value is not text as it should be")]
    Text,
    /// Twice the same name.
    #[error("a header comes twice")]
    Duplicate,
}

/// Names, in lower case, and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a header; the name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        value.split('\0').next()
    }

    /// Takes an uncompressed block.
    pub fn parse(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = block.try_get_u32().map_err(|_| HeaderError::Length)? as usize;
        if count > COUNT {
            return Err(HeaderError::TooMany);
        }
        let mut headers = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let name = text(&mut block)?;
            let value = text(&mut block)?;
            if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(HeaderError::Text);
            }
            if headers.0.iter().any(|(known, _)| known == name) {
                return Err(HeaderError::Duplicate);
            }
            headers.0.push((name.to_string(), value.to_string()));
        }
        if block.is_empty() { Ok(headers) } else { Err(HeaderError::Length) }
    }

    /// The uncompressed block.
    fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        block
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn text<'a>(block: &mut &'a [u8]) -> Result<&'a str, HeaderError> {
    let length = block.try_get_u32().map_err(|_| HeaderError::Length)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(HeaderError::Length)?;
    *block = rest;
    std::str::from_utf8(text).map_err(|_| HeaderError::Text)
}

/// Takes the other side's blocks apart.
pub struct Inflater {
    zlib: Decompress,
    block: Vec<u8>,
}

impl Inflater {
    /// At the start of a connection.
    pub fn new() -> Self {
        Self { zlib: Decompress::new(true), block: Vec::new() }
    }

    /// The headers of the next block. Never holds more than `BLOCK` bytes, whatever the input says.
    pub fn read(&mut self, mut compressed: &[u8]) -> Result<Headers, HeaderError> {
        self.block.clear();
        let mut piece = [0_u8; 4096];
        loop {
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            match self.zlib.decompress(compressed, &mut piece, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(HeaderError::Zlib),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Zlib)?;
                }
                Err(_) => return Err(HeaderError::Zlib),
            }
            let (read, written) = (self.zlib.total_in() - read, self.zlib.total_out() - written);
            compressed = &compressed[read as usize..];
            self.block.extend_from_slice(&piece[..written as usize]);
            if self.block.len() > BLOCK {
                return Err(HeaderError::TooLarge);
            }
            if read == 0 && written == 0 {
                break;
            }
        }
        if !compressed.is_empty() {
            return Err(HeaderError::Zlib);
        }
        let headers = Headers::parse(&self.block);
        self.block.shrink_to(4096);
        headers
    }
}

/// Makes our own blocks.
pub struct Deflater {
    zlib: Compress,
}

impl Deflater {
    /// At the start of a connection.
    pub fn new() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        // Only a stream that has begun refuses a dictionary.
        let _ = zlib.set_dictionary(&DICTIONARY);
        Self { zlib }
    }

    /// Appends the compressed block of some headers.
    pub fn write(&mut self, headers: &Headers, out: &mut BytesMut) -> Result<(), HeaderError> {
        let block = headers.to_block();
        let mut rest = block.as_slice();
        let mut piece = [0_u8; 4096];
        loop {
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self.zlib.compress(rest, &mut piece, FlushCompress::Sync);
            status.map_err(|_| HeaderError::Zlib)?;
            let (read, written) = (self.zlib.total_in() - read, self.zlib.total_out() - written);
            rest = &rest[read as usize..];
            out.extend_from_slice(&piece[..written as usize]);
            // A flush that left room in the piece is complete.
            if rest.is_empty() && (written as usize) < piece.len() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressed(block: &[u8]) -> Vec<u8> {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&DICTIONARY).unwrap();
        let mut out = Vec::with_capacity(block.len() + 1024);
        zlib.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
        out
    }

    fn block_of(count: u32, texts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut block = count.to_be_bytes().to_vec();
        for (length, text) in texts {
            block.put_u32(*length);
            block.put_slice(text);
        }
        block
    }

    #[test]
    fn blocks_of_one_connection_share_a_zlib_stream() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        for round in 0..50 {
            let id = round.to_string();
            let headers: Headers =
                [("streamtype", "data"), ("port", "8080"), ("requestid", &id)].into_iter().collect();
            let mut out = BytesMut::new();
            deflater.write(&headers, &mut out).unwrap();
            assert!(round == 0 || out.len() < 40, "{} bytes", out.len());
            assert_eq!(inflater.read(&out), Ok(headers));
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_made() {
        let lie = u32::MAX;
        let cases = [
            (block_of(lie, &[]), HeaderError::TooMany),
            (block_of(COUNT as u32 + 1, &[]), HeaderError::TooMany),
            (block_of(1, &[]), HeaderError::Length),
            (block_of(1, &[(lie, b"a"), (1, b"b")]), HeaderError::Length),
            (block_of(1, &[(1, b"a"), (2, b"b")]), HeaderError::Length),
            (block_of(0, &[(1, b"a")]), HeaderError::Length),
            (block_of(1, &[(0, b""), (0, b"")]), HeaderError::Text),
            (block_of(1, &[(1, b"A"), (0, b"")]), HeaderError::Text),
            (block_of(1, &[(1, b"\xff"), (0, b"")]), HeaderError::Text),
            (block_of(2, &[(1, b"a"), (0, b""), (1, b"a"), (0, b"")]), HeaderError::Duplicate),
            (vec![0, 0], HeaderError::Length),
        ];
        for (block, error) in cases {
            assert_eq!(Headers::parse(&block), Err(error), "{block:?}");
            assert_eq!(Inflater::new().read(&compressed(&block)), Err(error), "{block:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_without_being_unpacked() {
        let bomb = compressed(&vec![0; 32 << 20]);
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        let mut inflater = Inflater::new();
        assert_eq!(inflater.read(&bomb), Err(HeaderError::TooLarge));
        assert!(inflater.block.capacity() < 4 * BLOCK);
    }

    #[test]
    fn only_a_zlib_stream_with_the_dictionary_is_taken() {
        let mut plain = Vec::with_capacity(1024);
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.compress_vec(&block_of(0, &[]), &mut plain, FlushCompress::Sync).unwrap();
        // Without a dictionary it is a valid stream, and its text is right.
        assert_eq!(Inflater::new().read(&plain), Ok(Headers::default()));
        let mut ended = Vec::with_capacity(1024);
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.compress_vec(&block_of(0, &[]), &mut ended, FlushCompress::Finish).unwrap();
        for bad in [ended.as_slice(), b"GET / HTTP/1.1\r\n\r\n", b"\x78\xbb\0\0\0\0", b""] {
            assert!(Inflater::new().read(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in prop::collection::btree_map("[a-z0-9:-]{1,40}", "[ -~\0]{0,400}", 0..30)) {
            let headers: Headers = texts.into_iter().collect();
            let mut out = BytesMut::new();
            Deflater::new().write(&headers, &mut out).unwrap();
            prop_assert_eq!(Inflater::new().read(&out), Ok(headers));
        }

        #[test]
        fn no_block_panics_or_grows(block in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Headers::parse(&block);
            let mut inflater = Inflater::new();
            let _ = inflater.read(&block);
            let _ = inflater.read(&compressed(&block));
            prop_assert!(inflater.block.capacity() <= 4 * BLOCK);
        }
    }
}
