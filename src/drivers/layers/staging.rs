//! Things that grow out of sight, and the two renames of the cache: into place when whole, into the trash when done.
//! What does not live here: filling them, and records.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::error::LayerError;
use super::{Layers, overlay};
use crate::ids::{ContainerId, Digest};
use crate::layout::Layout;
use crate::telemetry::Leak;

/// A layer in the staging directory; removed when dropped before `Layers::commit`.
#[derive(Debug)]
pub struct Staged {
    layout: Layout,
    name: String,
}

pub(super) fn unique() -> String {
    ContainerId::generate().to_string()
}

impl Staged {
    /// An empty layer, mode 0755.
    pub(super) fn layer(layout: &Layout) -> Result<Self, LayerError> {
        let staged = Self { layout: layout.clone(), name: unique() };
        let outer = layout.staged(&staged.name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&outer);
        made.map_err(LayerError::io("make", &outer))?;
        let layer = layout.staged_layer(&staged.name);
        let made = std::fs::DirBuilder::new().mode(0o755).create(&layer);
        made.map_err(LayerError::io("make", &layer))?;
        rustix::fs::chmod(&layer, Mode::from_raw_mode(0o755))
            .map_err(LayerError::io("set the mode of", &layer))?;
        Ok(staged)
    }

    /// The layer's root.
    pub(super) fn open(&self) -> Result<OwnedFd, LayerError> {
        let path = self.layout.staged_layer(&self.name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(LayerError::io("open", &path))
    }

    /// The layer over its parents (top first), merged.
    pub(super) fn open_merged(&self, lower: Vec<std::path::PathBuf>) -> Result<OwnedFd, LayerError> {
        let work = self.layout.staged_work(&self.name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&work);
        made.map_err(LayerError::io("make", &work))?;
        let upper = self.layout.staged_layer(&self.name);
        let writable = Some(overlay::Writable { upper: &upper, work: &work });
        let mounted = overlay::mount(&overlay::Stack { lower, writable, mapped: None, label: None })?;
        // A mount is opened by path only; its root has to be open for reading.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&mounted, ".", flags, Mode::empty()).map_err(LayerError::io("open", &upper))
    }

    /// Where it grows.
    pub(super) fn path(&self) -> std::path::PathBuf {
        self.layout.staged_layer(&self.name)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let path = self.layout.staged(&self.name);
        if let Err(error) = std::fs::remove_dir_all(&path) {
            Leak::Layer.found();
            tracing::warn!(path = %path.display(), %error, "cannot remove a staged layer; the next start does");
        }
    }
}

impl Layers {
    /// Puts a whole layer in its place: see `commit_all`.
    pub fn commit(&self, staged: &Staged, id: &Digest) -> Result<(), LayerError> {
        self.commit_all(std::iter::once((staged, id)))?.pop().unwrap_or(Ok(()))
    }

    /// Puts whole layers in their places, synced: after this they survive a power cut. There must be no record of an id;
    /// a directory left without one makes room. One sync serves all, as it takes the disk longer than all else.
    pub fn commit_all<'a>(
        &self,
        layers: impl Iterator<Item = (&'a Staged, &'a Digest)>,
    ) -> Result<Vec<Result<(), LayerError>>, LayerError> {
        let staging = self.layout.staging();
        let opened = File::open(&staging).map_err(LayerError::io("open", &staging))?;
        rustix::fs::syncfs(&opened).map_err(LayerError::io("sync", &staging))?;
        let placed = layers.map(|(staged, id)| self.place(staged, id)).collect();
        sync_directory(&self.layout.layers())?;
        Ok(placed)
    }

    fn place(&self, staged: &Staged, id: &Digest) -> Result<(), LayerError> {
        let to = self.layout.layer(id);
        if to.exists() {
            self.trash(&to)?;
        }
        std::fs::rename(staged.path(), &to).map_err(LayerError::io("put in place", &to))
    }

    /// Keeps a small blob under its digest, synced. The caller has verified it.
    pub fn keep_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), LayerError> {
        let to = self.layout.blob(digest);
        if to.exists() {
            return Ok(());
        }
        let from = self.layout.staged(&unique());
        let mut options = File::options();
        let written = options.write(true).create_new(true).mode(0o600).open(&from).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(LayerError::io("write", &from))?;
        std::fs::rename(&from, &to).map_err(LayerError::io("put in place", &to))?;
        sync_directory(&self.layout.blobs())
    }

    /// A blob that was kept, if it still is what its name says.
    pub fn kept_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.layout.blob(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Removes a kept blob; fine if there is none.
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), LayerError> {
        let path = self.layout.blob(digest);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LayerError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Moves a layer out of sight at once; `empty_trash` frees its space. Fine if it is gone.
    pub fn discard(&self, id: &Digest) -> Result<(), LayerError> {
        let path = self.layout.layer(id);
        if path.exists() { self.trash(&path) } else { Ok(()) }
    }

    fn trash(&self, path: &Path) -> Result<(), LayerError> {
        std::fs::rename(path, self.layout.trashed(&unique()))
            .map_err(LayerError::io("move to the trash", path))
    }

    fn trash_leak(&self, path: &Path, kind: Leak) -> Result<(), LayerError> {
        let trashed = self.trash(path);
        kind.note(&trashed);
        trashed
    }

    /// Frees what was discarded; takes as long as the disk takes.
    pub fn empty_trash(&self) {
        let trash = self.layout.trash();
        for path in children(&trash) {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            // Another emptying at the same time is fine.
            if let Err(error) = removed.or_else(absent) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what is in the trash");
            }
        }
    }

    /// At start: what grew when the daemon died, layers without a record, and blobs of no image go to the trash.
    pub fn sweep(
        &self,
        layers: impl Fn(&Digest) -> bool,
        blobs: impl Fn(&Digest) -> bool,
    ) -> Result<(), LayerError> {
        for path in children(&self.layout.staging()) {
            self.trash_leak(&path, Leak::Layer)?;
        }
        sweep_unknown(self, (&self.layout.layers(), Leak::Layer), layers)?;
        sweep_unknown(self, (&self.layout.blobs(), Leak::Blob), blobs)
    }
}

fn sweep_unknown(
    layers: &Layers,
    (directory, kind): (&Path, Leak),
    known: impl Fn(&Digest) -> bool,
) -> Result<(), LayerError> {
    for path in children(directory) {
        let name = path.file_name().and_then(|name| name.to_str());
        let digest = name.and_then(|name| Digest::parse(&format!("sha256:{name}")).ok());
        if !digest.is_some_and(|digest| known(&digest)) {
            layers.trash_leak(&path, kind)?;
        }
    }
    Ok(())
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn children(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

fn sync_directory(path: &Path) -> Result<(), LayerError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(LayerError::io("sync", path))
}
