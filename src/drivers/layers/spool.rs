//! The compressed bytes of a layer that arrives slowly, on disk until it is unpacked: a pull that was cut short goes on
//! there, also in another daemon. What does not live here: which layers arrive slowly.
//!
//! Nothing is synced. A file that a power cut has damaged makes a wrong digest, and then the layer is fetched anew.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Layers;
use super::error::LayerError;
use super::staging::{children, id_of};
use crate::ids::Digest;

/// Whoever wanted it would have come back.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Bytes of all spools, and how many there may be.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    most: u64,
}

impl Budget {
    pub(super) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), most })
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        let left = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }
}

/// What has arrived of one blob. Only one of a blob is open at a time.
#[derive(Debug)]
pub struct Spool {
    file: File,
    layers: Layers,
    blob: Digest,
    len: u64,
}

impl Layers {
    /// The spool of a blob, with what an earlier pull left in it. None if there is none and `make` does not want one,
    /// if spools are off, or if another pull has it open.
    pub fn spool(&self, blob: &Digest, make: bool) -> Result<Option<Spool>, LayerError> {
        if self.spools.most == 0 {
            return Ok(None);
        }
        let path = self.layout.spool(blob);
        let mut options = File::options();
        let file = match options.read(true).append(true).create(make).mode(0o600).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(LayerError::io("open", &path))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(LayerError::io("lock", &path)(error)),
        }
        let len = file.metadata().map_err(LayerError::io("look at", &path))?.len();
        if len == 0 {
            self.sweep_spools()?;
        }
        Ok(Some(Spool { file, layers: self.clone(), blob: blob.clone(), len }))
    }

    /// What pulls that were cut short have left, less what another has open now.
    pub fn idle_spools(&self) -> Vec<Spool> {
        let blobs = children(&self.layout.spools()).into_iter().filter_map(|path| id_of(&path));
        blobs.filter_map(|blob| self.spool(&blob, false).ok()?).collect()
    }

    /// Bytes of all spools.
    pub fn spooled(&self) -> u64 {
        self.spools.used.load(Ordering::Relaxed)
    }

    /// Removes what nobody came back for, and counts the rest.
    pub(super) fn sweep_spools(&self) -> Result<(), LayerError> {
        let directory = self.layout.spools();
        let entries = std::fs::read_dir(&directory).map_err(LayerError::io("read", &directory))?;
        let mut used = 0;
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|when| SystemTime::now().duration_since(when).ok());
            let known = Digest::parse(&format!("sha256:{}", entry.file_name().to_string_lossy())).is_ok();
            let stale = age.is_some_and(|age| age > STALE) || self.spools.most == 0;
            if stale || !known || !metadata.is_file() {
                tracing::debug!(path = %entry.path().display(), "removing a stale spool");
                let _ = std::fs::remove_file(entry.path());
            } else {
                used += metadata.len();
            }
        }
        self.spools.used.store(used, Ordering::Relaxed);
        Ok(())
    }
}

impl Spool {
    /// Whose bytes they are.
    pub fn blob(&self) -> &Digest {
        &self.blob
    }

    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes at an offset, `most` at most; none behind the end.
    pub fn read(&self, offset: u64, most: usize) -> std::io::Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(most);
        let mut bytes = vec![0; left.min(most)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// Adds what came next. False, and nothing added, if that would take more of the disk than may be.
    pub fn add(&mut self, chunks: &[Bytes]) -> std::io::Result<bool> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let stat = rustix::fs::fstatvfs(&self.file)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.layers.reserve.saturating_add(bytes) || !self.layers.spools.take(bytes) {
            return Ok(false);
        }
        for chunk in chunks {
            self.file.write_all(chunk)?;
            self.len += chunk.len() as u64;
        }
        Ok(true)
    }

    /// Removes it. What the kernel has not written yet never is.
    pub fn discard(self) {
        if let Err(error) = std::fs::remove_file(self.layers.layout.spool(&self.blob)) {
            tracing::warn!(blob = %self.blob, %error, "cannot remove a spool; a later start does");
        }
        self.layers.spools.give_back(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::layers::Config;
    use crate::drivers::trash::Trash;
    use crate::layout::Layout;

    fn open(layout: &Layout, spool_mib: u64) -> Layers {
        Layers::open(layout, &Config { spool_mib, ..Config::default() }, Trash::new(layout)).unwrap()
    }

    fn chunks(bytes: &'static [u8]) -> Vec<Bytes> {
        bytes.chunks(3).map(Bytes::from_static).collect()
    }

    #[test]
    fn another_daemon_finds_what_was_kept_and_a_discarded_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), dir.path());
        let blob = Digest::of(b"blob");
        let layers = open(&layout, 1);
        assert!(layers.spool(&blob, false).unwrap().is_none());
        let mut spool = layers.spool(&blob, true).unwrap().unwrap();
        assert!(spool.add(&chunks(b"hello ")).unwrap() && spool.add(&chunks(b"world")).unwrap());
        assert!(layers.spool(&blob, true).unwrap().is_none(), "one pull at a time");
        assert!(layers.idle_spools().is_empty(), "a pull has it open");
        drop(spool);
        assert_eq!(layers.idle_spools().iter().map(Spool::blob).collect::<Vec<_>>(), [&blob]);
        assert_eq!(layers.spooled(), 11);

        let layers = open(&layout, 1);
        let mut spool = layers.spool(&blob, false).unwrap().unwrap();
        assert_eq!(spool.len(), 11);
        assert_eq!((spool.read(0, 7).unwrap(), spool.read(7, 7).unwrap()), ("hello w".into(), "orld".into()));
        assert!(spool.read(11, 7).unwrap().is_empty());
        assert!(spool.add(&chunks(b"!")).unwrap());
        assert_eq!(spool.read(6, 100).unwrap(), "world!");
        spool.discard();
        assert_eq!(std::fs::read_dir(layout.spools()).unwrap().count(), 0);
        assert_eq!(layers.spools.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn spools_are_bounded_and_those_that_nobody_wants_any_more_go() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), dir.path());
        let layers = open(&layout, 1);
        let mut one = layers.spool(&Digest::of(b"one"), true).unwrap().unwrap();
        let mut two = layers.spool(&Digest::of(b"two"), true).unwrap().unwrap();
        let most = vec![Bytes::from(vec![7; (1 << 20) - 5])];
        assert!(one.add(&most).unwrap() && !two.add(&chunks(b"sixsix")).unwrap());
        assert!(two.add(&chunks(b"five5")).unwrap());
        drop((one, two));
        let path = layout.spool(&Digest::of(b"one"));
        let old = SystemTime::now() - STALE - Duration::from_secs(60);
        File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
        let stranger = layout.spool(&Digest::of(b"x")).with_extension("bak");
        std::fs::write(&stranger, "x").unwrap();
        let layers = open(&layout, 1);
        assert!(!path.exists() && !stranger.exists());
        assert_eq!(layers.spools.used.load(Ordering::Relaxed), 5);
        drop(layers);
        assert!(open(&layout, 0).spool(&Digest::of(b"two"), true).unwrap().is_none());
        assert_eq!(std::fs::read_dir(layout.spools()).unwrap().count(), 0);
    }
}
