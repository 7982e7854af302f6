//! An archive that arrives in pieces: a file without a name, so that nothing is left of it whatever happens.
//! What does not live here: what is in the archive.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::write::MultiGzDecoder;

use super::Layers;
use super::error::LayerError;
use super::staging::Name;

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes between two looks at the file system.
const LOOK_EVERY: u64 = 16 << 20;

/// A growing archive. What arrives as gzip is kept plain.
#[derive(Debug)]
pub struct Incoming {
    content: Content,
    layers: Layers,
    path: std::path::PathBuf,
}

#[derive(Debug)]
enum Content {
    /// Too short to tell, as nothing.
    Unknown(Room, Vec<u8>),
    Plain(Room),
    Gzip(Box<MultiGzDecoder<Room>>),
}

/// The file, which never takes the last of the disk.
#[derive(Debug)]
struct Room {
    file: File,
    reserve: u64,
    written: u64,
    looked: u64,
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= self.looked + LOOK_EVERY {
            self.looked = self.written;
            let stat = rustix::fs::fstatvfs(&self.file)?;
            if stat.f_bavail.saturating_mul(stat.f_frsize) < self.reserve {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let len = self.file.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Layers {
    /// An archive of no bytes yet, in the staging directory's file system.
    pub fn incoming(&self) -> Result<Incoming, LayerError> {
        let name = Name::new(&self.growing);
        let path = self.layout.staged(&name.name);
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(LayerError::io("make", &path))?;
        std::fs::remove_file(&path).map_err(LayerError::io("unlink", &path))?;
        let room = Room { file, reserve: self.reserve, written: 0, looked: 0 };
        Ok(Incoming { content: Content::Unknown(room, Vec::new()), layers: self.clone(), path })
    }
}

impl Incoming {
    /// Takes the next piece.
    pub fn write(self, bytes: &[u8]) -> Result<Self, LayerError> {
        let Self { content, layers, path } = self;
        let content = content.write(bytes).map_err(|error| failed(error, &path))?;
        Ok(Self { content, layers, path })
    }

    /// The whole archive, plain.
    pub fn finish(self) -> Result<File, LayerError> {
        let path = self.path;
        let room = match self.content {
            Content::Unknown(mut room, start) => room.write_all(&start).map(|()| room),
            Content::Plain(room) => Ok(room),
            Content::Gzip(decoder) => decoder.finish(),
        };
        room.map(|room| room.file).map_err(|error| failed(error, &path))
    }
}

/// The decoder speaks of bad content by these kinds, the disk does not.
fn failed(error: io::Error, path: &Path) -> LayerError {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            LayerError::Gzip(error)
        }
        _ => LayerError::io("write", path)(error),
    }
}

impl Content {
    fn write(self, bytes: &[u8]) -> io::Result<Self> {
        match self {
            Self::Unknown(room, mut start) => {
                start.extend_from_slice(bytes);
                if start.len() < GZIP.len() {
                    return Ok(Self::Unknown(room, start));
                }
                let known = if start.starts_with(&GZIP) {
                    Self::Gzip(Box::new(MultiGzDecoder::new(room)))
                } else {
                    Self::Plain(room)
                };
                known.write(&start)
            }
            Self::Plain(mut room) => room.write_all(bytes).map(|()| Self::Plain(room)),
            Self::Gzip(mut decoder) => decoder.write_all(bytes).map(|()| Self::Gzip(decoder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;
    use crate::drivers::layers::Config;
    use crate::drivers::trash::Trash;
    use crate::layout::Layout;

    fn arrive(pieces: &[&[u8]], reserve_mib: u64) -> Result<Vec<u8>, LayerError> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), dir.path());
        let layers =
            Layers::open(&layout, &Config { reserve_mib, ..Config::default() }, Trash::new(&layout)).unwrap();
        let mut incoming = layers.incoming()?;
        assert_eq!(std::fs::read_dir(layout.staging()).unwrap().count(), 0);
        for piece in pieces {
            incoming = incoming.write(piece)?;
        }
        let mut file = incoming.finish()?;
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn an_archive_is_kept_plain_however_it_comes() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"hello").unwrap();
        let gzip = encoder.finish().unwrap();
        for split in 0..gzip.len() {
            let (one, two) = gzip.split_at(split);
            assert_eq!(arrive(&[one, two], 0).unwrap(), b"hello", "{split}");
        }
        assert_eq!(arrive(&[b"p", b"", b"lain"], 0).unwrap(), b"plain");
        assert_eq!(arrive(&[], 0).unwrap(), b"");
        assert_eq!(arrive(&[b"\x1f"], 0).unwrap(), b"\x1f");
        assert!(arrive(&[&gzip[..gzip.len() - 4]], 0).is_err(), "cut short");
    }

    #[test]
    fn the_last_of_the_disk_is_not_taken() {
        let piece = vec![0; 1 << 20];
        let pieces = vec![piece.as_slice(); 18];
        assert!(arrive(&pieces, u64::MAX >> 21).is_err());
    }
}
