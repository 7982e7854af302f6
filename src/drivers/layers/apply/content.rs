//! Writing a file's data. What does not live here: making the file.

use std::hash::Hasher as _;
use std::io::BufRead;
use std::os::fd::OwnedFd;

use super::super::error::LayerError;
use super::super::seal::ContentHash;
use super::super::tar::{Entry, Reader};

/// Writes a file's data where it belongs; the holes between are left to the file system. Returns the content's hash; of
/// a file with holes none, for that is read when it is needed.
pub fn write<R: BufRead>(
    fd: &OwnedFd,
    entry: &Entry,
    reader: &mut Reader<R>,
) -> Result<Option<u64>, LayerError> {
    let whole = [(0, entry.size)];
    let pieces = entry.sparse.as_ref().map_or(&whole[..], |map| map.pieces.as_slice());
    let mut hash = ContentHash::new();
    for (offset, length) in pieces {
        if entry.sparse.is_some() {
            rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(*offset))
                .map_err(LayerError::apply("write", &entry.path))?;
        }
        let mut left = *length;
        while left > 0 {
            let data = reader.data()?;
            let data = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, data));
            let written = written.map_err(LayerError::apply("write", &entry.path))?;
            hash.write(&data[..written]);
            reader.consume(written);
            left -= written as u64;
        }
    }
    let Some(map) = &entry.sparse else { return Ok(Some(hash.finish())) };
    rustix::fs::ftruncate(fd, map.size).map_err(LayerError::apply("set the size of", &entry.path))?;
    Ok(None)
}
