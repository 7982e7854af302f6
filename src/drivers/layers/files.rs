//! A layer made of plain files instead of an archive: what the blobs of an OCI artifact become.
//! What does not live here: their names and digests, which the caller has checked.

use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

use super::error::LayerError;
use super::seal::ContentHash;
use super::staging::Staged;
use super::{Layers, apply};

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;
/// Bytes between two looks at the file system.
const LOOK_EVERY: u64 = 16 << 20;

impl Layers {
    /// A layer without files, to be filled and committed.
    pub fn files(&self) -> Result<Staged, LayerError> {
        Staged::layer(self)
    }

    /// Adds the file `name`, which must be a plain name that the layer does not have, with all bytes of `input`. Blocks
    /// until those end.
    pub fn add_file(&self, staged: &Staged, name: &str, input: impl Read) -> Result<(), LayerError> {
        let root = staged.open()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, name, flags, Mode::from_raw_mode(0o644));
        let mut file = File::from(file.map_err(LayerError::apply("make", name.as_bytes()))?);
        // Whatever the umask is.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))
            .map_err(LayerError::apply("set the mode of", name.as_bytes()))?;
        let content = self.copy(input, &mut file, name)?;
        // The same on every node, whenever it came.
        for fd in [file.as_fd(), root.as_fd()] {
            apply::set_time(fd, (0, 0)).map_err(LayerError::apply("set the times of", name.as_bytes()))?;
        }
        let stat = rustix::fs::fstat(&file).map_err(LayerError::apply("look at", name.as_bytes()))?;
        staged.note([(stat.st_ino, content)].into());
        Ok(())
    }

    /// Returns the content's hash.
    fn copy(&self, mut input: impl Read, file: &mut File, name: &str) -> Result<u64, LayerError> {
        let failed = |error: io::Error| LayerError::Apply { verb: "write", path: name.into(), source: error };
        let mut buffer = vec![0; CHUNK];
        let (mut hash, mut total, mut looked) = (ContentHash::new(), 0, 0);
        loop {
            let len = match input.read(&mut buffer) {
                Ok(0) => return Ok(hash.finish()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(failed)?,
            };
            file.write_all(&buffer[..len]).map_err(failed)?;
            hash.write(&buffer[..len]);
            total += len as u64;
            if total - looked >= LOOK_EVERY {
                looked = total;
                self.check_room(file.as_fd(), name)?;
            }
        }
    }

    pub(super) fn check_room(&self, file: std::os::fd::BorrowedFd<'_>, name: &str) -> Result<(), LayerError> {
        let stat = rustix::fs::fstatvfs(file).map_err(LayerError::apply("look at", name.as_bytes()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.reserve {
            return Err(LayerError::DiskFull { path: name.into(), free });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::drivers::trash::Trash;
    use crate::ids::Digest;
    use crate::layout::Layout;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn files_become_a_layer_and_a_name_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("root"), dir.path().join("state"));
        let layers = Layers::open(&layout, &Config::default(), Trash::new(&layout)).unwrap();
        let staged = layers.files().unwrap();
        layers.add_file(&staged, "model.bin", &[7; 10_000][..]).unwrap();
        layers.add_file(&staged, "empty", io::empty()).unwrap();
        assert!(layers.add_file(&staged, "empty", io::empty()).is_err());
        let id = Digest::of(b"x");
        let sealed = layers.commit(&staged, &id).unwrap();
        assert_eq!(sealed.inodes, 3);
        assert!((10_000..100_000).contains(&sealed.bytes), "{sealed:?}");
        assert_eq!(layers.inspect(&id, &mut |_| ()).unwrap(), sealed);
        let path = layout.layer(&id).join("model.bin");
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!((file.permissions().mode() & 0o7777, file.uid(), file.len()), (0o644, 0, 10_000));
        assert_eq!((file.mtime(), std::fs::metadata(layout.layer(&id)).unwrap().mtime()), (0, 0));
    }

    #[test]
    fn a_full_disk_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("root"), dir.path().join("state"));
        let config = Config { reserve_mib: u64::MAX >> 20, ..Config::default() };
        let layers = Layers::open(&layout, &config, Trash::new(&layout)).unwrap();
        let staged = layers.files().unwrap();
        let error = layers.add_file(&staged, "big", io::repeat(1).take(LOOK_EVERY)).unwrap_err();
        assert!(matches!(error, LayerError::DiskFull { .. }), "{error:?}");
    }
}
