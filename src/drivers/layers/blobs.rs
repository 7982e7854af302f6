//! Blobs that are kept as they came: manifests and configs always, packed layers where the configuration says so.
//! What does not live here: whose they are, and unpacking.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::Layers;
use super::error::LayerError;
use super::staging::{Name, absent, sync_directory};
use crate::ids::{Digest, Hasher};

/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;

/// A blob that grows in the staging directory; removed when dropped before it is kept.
#[derive(Debug)]
pub struct BlobCopy {
    file: File,
    path: PathBuf,
    _name: Name,
}

impl Write for BlobCopy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobCopy {
    fn drop(&mut self) {
        // Where it was kept, nothing is there any more.
        if let Err(error) = absent(std::fs::remove_file(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a staged blob; the next start does");
        }
    }
}

impl Layers {
    fn blob_copy(&self) -> Result<BlobCopy, LayerError> {
        let name = Name::new(&self.growing);
        let path = self.layout.staged(&name.name);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        Ok(BlobCopy { file: file.map_err(LayerError::io("make", &path))?, path, _name: name })
    }

    /// Where packed layers are kept: the copy of one that arrives.
    pub fn packed_copy(&self) -> Result<Option<BlobCopy>, LayerError> {
        self.keep_blobs.then(|| self.blob_copy()).transpose()
    }

    /// Puts a verified copy in its place. What is synced next makes it last.
    pub fn keep_copy(&self, copy: &BlobCopy, digest: &Digest) -> Result<(), LayerError> {
        let to = self.layout.blob(digest);
        std::fs::rename(&copy.path, &to).map_err(LayerError::io("put in place", &to))
    }

    /// Keeps a small blob under its digest, synced. The caller has verified it.
    pub fn keep_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), LayerError> {
        if self.kept_blob(digest).is_some() {
            return Ok(());
        }
        let mut copy = self.blob_copy()?;
        let written = copy.write_all(bytes).and_then(|()| copy.file.sync_all());
        written.map_err(LayerError::io("write", &copy.path))?;
        self.keep_copy(&copy, digest)?;
        sync_directory(&self.layout.blobs())
    }

    /// A small blob that was kept, if it still is what its name says.
    pub fn kept_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.layout.blob(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Bytes of a blob, if there is one.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        Some(std::fs::metadata(self.layout.blob(digest)).ok()?.len())
    }

    /// Reads a blob of any size, and tells of the bytes as they come: how many, if it still is what its name says.
    pub fn inspect_blob(&self, digest: &Digest, progress: &mut dyn FnMut(u64)) -> io::Result<Option<u64>> {
        let mut file = File::open(self.layout.blob(digest))?;
        let (mut hash, mut total, mut buffer) = (Hasher::new(), 0, vec![0; CHUNK]);
        loop {
            let len = match file.read(&mut buffer) {
                Ok(0) => return Ok((hash.finish() == *digest).then_some(total)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            hash.update(&buffer[..len]);
            total += len as u64;
            progress(len as u64);
        }
    }

    /// Removes a kept blob; fine if there is none.
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), LayerError> {
        let path = self.layout.blob(digest);
        absent(std::fs::remove_file(&path)).map_err(LayerError::io("remove", &path))
    }
}
