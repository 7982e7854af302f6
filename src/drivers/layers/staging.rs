//! Things that grow out of sight, and the renames of the cache: into place when whole, out of it when done or damaged.
//! What does not live here: filling them, records, and emptying the trash.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::error::LayerError;
use super::seal::{self, Contents, Sealed};
use super::{Layers, overlay};
use crate::ids::{ContainerId, Digest};
use crate::layout::Layout;
use crate::telemetry::Leak;

/// What somebody works on.
pub(super) type Growing = Arc<Mutex<InWork>>;

#[derive(Debug, Default)]
pub(super) struct InWork {
    /// In the staging directory.
    names: HashSet<String>,
    /// Layers that were begun, ever.
    layers: u64,
}

fn in_work(growing: &Growing) -> MutexGuard<'_, InWork> {
    growing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name in the staging directory, ours until it is dropped.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: String,
    growing: Growing,
}

impl Name {
    pub(super) fn new(growing: &Growing) -> Self {
        let name = ContainerId::generate().to_string();
        in_work(growing).names.insert(name.clone());
        Self { name, growing: Arc::clone(growing) }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        in_work(&self.growing).names.remove(&self.name);
    }
}

/// A layer in the staging directory; removed when dropped before `Layers::commit`.
#[derive(Debug)]
pub struct Staged {
    layout: Layout,
    name: Name,
    /// Open from the beginning: an error in writing back is told to those alone who were there when it happened.
    root: OwnedFd,
    /// In the order of opening.
    number: u64,
    contents: Mutex<Contents>,
}

impl Staged {
    /// An empty layer, mode 0755.
    pub(super) fn layer(layers: &Layers) -> Result<Self, LayerError> {
        let (layout, name) = (layers.layout.clone(), Name::new(&layers.growing));
        let outer = layout.staged(&name.name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&outer);
        made.map_err(LayerError::io("make", &outer))?;
        let opened = make_root(&layout.staged_layer(&name.name), &layers.growing);
        let (root, number) = opened.inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&outer);
        })?;
        Ok(Self { layout, name, root, number, contents: Mutex::default() })
    }

    /// The layer's root.
    pub(super) fn open(&self) -> Result<OwnedFd, LayerError> {
        self.root.try_clone().map_err(LayerError::io("open", self.path()))
    }

    /// The layer over its parents (top first), merged.
    pub(super) fn open_merged(&self, lower: Vec<PathBuf>) -> Result<OwnedFd, LayerError> {
        let work = self.layout.staged_work(&self.name.name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&work);
        made.map_err(LayerError::io("make", &work))?;
        let upper = self.path();
        let writable = Some(overlay::Writable { upper: &upper, work: &work });
        let mounted = overlay::mount(&overlay::Stack { lower, writable, mapped: None, label: None })?;
        // A mount is opened by path only; its root has to be open for reading.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&mounted, ".", flags, Mode::empty()).map_err(LayerError::io("open", &upper))
    }

    /// Where it grows.
    pub(super) fn path(&self) -> PathBuf {
        self.layout.staged_layer(&self.name.name)
    }

    /// Once; what was noted is forgotten then.
    pub(super) fn seal(&self) -> Result<Sealed, LayerError> {
        let contents = std::mem::take(&mut *self.contents.lock().unwrap_or_else(PoisonError::into_inner));
        seal::of_new(self.root.as_fd(), &contents)
    }

    /// Contents of files that were just written: `commit` need not read them.
    pub(super) fn note(&self, contents: Contents) {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).extend(contents);
    }
}

fn make_root(path: &Path, growing: &Growing) -> Result<(OwnedFd, u64), LayerError> {
    let made = std::fs::DirBuilder::new().mode(0o755).create(path);
    made.map_err(LayerError::io("make", path))?;
    // Whatever the umask is.
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::chmod(path, mode).map_err(LayerError::io("set the mode of", path))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut growing = in_work(growing);
    growing.layers += 1;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(LayerError::io("open", path))?;
    Ok((opened, growing.layers))
}

/// By as many threads as there are cores: of many files it takes a second.
fn seal_all(layers: &[(&Staged, &Digest)]) -> Vec<Result<Sealed, LayerError>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = layers.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let seal = |part: &'_ [(&Staged, &Digest)]| part.iter().map(|(staged, _)| staged.seal()).collect();
        let parts = layers.chunks(share).map(|part| scope.spawn(move || -> Vec<_> { seal(part) }));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

impl Drop for Staged {
    fn drop(&mut self) {
        let path = self.layout.staged(&self.name.name);
        if let Err(error) = std::fs::remove_dir_all(&path) {
            Leak::Layer.found();
            tracing::warn!(path = %path.display(), %error, "cannot remove a staged layer; the next start does");
        }
    }
}

impl Layers {
    /// Puts a whole layer in its place: see `commit_all`.
    pub fn commit(&self, staged: &Staged, id: &Digest) -> Result<Sealed, LayerError> {
        self.commit_all(&[(staged, id)])?.swap_remove(0)
    }

    /// Puts whole layers in their places, synced: after this they survive a power cut. There must be no record of an id;
    /// a directory left without one makes room. One sync serves all, as it takes the disk longer than all else. Tells of
    /// each what it looks like and takes, now that all of it is on the disk.
    pub fn commit_all(
        &self,
        layers: &[(&Staged, &Digest)],
    ) -> Result<Vec<Result<Sealed, LayerError>>, LayerError> {
        // Who was there first is told of every error since.
        if let Some((oldest, _)) = layers.iter().min_by_key(|(staged, _)| staged.number) {
            rustix::fs::syncfs(&oldest.root).map_err(LayerError::io("sync", self.layout.staging()))?;
        }
        let place = |((staged, id), sealed): (&(&Staged, &Digest), Result<Sealed, LayerError>)| {
            let sealed = sealed?;
            self.place(staged, id).map(|()| sealed)
        };
        let placed = layers.iter().zip(seal_all(layers)).map(place).collect();
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

    /// Moves a layer out of sight at once; emptying the trash frees its space. Fine if it is gone.
    pub fn discard(&self, id: &Digest) -> Result<(), LayerError> {
        let path = self.layout.layer(id);
        if path.exists() { self.trash(&path) } else { Ok(()) }
    }

    /// Moves a damaged layer out of sight, where containers that run on it keep it. Fine if it is gone.
    pub fn quarantine(&self, id: &Digest) -> Result<(), LayerError> {
        let (from, to) =
            (self.layout.layer(id), self.layout.quarantined(id, ContainerId::generate().as_str()));
        absent(std::fs::rename(&from, &to)).map_err(LayerError::io("move to quarantine", &from))
    }

    /// The ids of damaged layers.
    pub fn quarantined(&self) -> Vec<Digest> {
        children(&self.layout.quarantine()).iter().filter_map(|path| id_of(path)).collect()
    }

    /// Damaged layers that nobody uses any more.
    pub fn unused_quarantined(&self, used: impl Fn(&Digest) -> bool) -> Vec<PathBuf> {
        unknown(&self.layout.quarantine(), used)
    }

    /// Moves them to the trash.
    pub fn release_quarantined(&self, used: impl Fn(&Digest) -> bool) -> Result<(), LayerError> {
        self.unused_quarantined(used).iter().try_for_each(|path| self.trash(path))
    }

    /// What is in the trash.
    pub fn trashed(&self) -> Vec<PathBuf> {
        children(&self.layout.trash())
    }

    fn trash(&self, path: &Path) -> Result<(), LayerError> {
        absent(self.trash.take(path)).map_err(LayerError::io("move to the trash", path))
    }

    /// Frees what was discarded, in the background. What is returned ends when all of it is gone.
    pub fn empty_trash(&self) -> tokio::sync::oneshot::Receiver<()> {
        self.trash.empty()
    }

    /// What nobody knows or works on: unfinished layers and blobs, layers without a record, blobs of no image.
    pub fn strays(
        &self,
        layers: impl Fn(&Digest) -> bool,
        blobs: impl Fn(&Digest) -> bool,
    ) -> Vec<(PathBuf, Leak)> {
        // Looked at first, and then for who works on it: what begins meanwhile is not seen at all.
        let mut staged = children(&self.layout.staging());
        let growing = in_work(&self.growing).names.clone();
        staged.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            !name.is_some_and(|name| growing.contains(name))
        });
        let layers = unknown(&self.layout.layers(), layers).into_iter().map(|path| (path, Leak::Layer));
        let blobs = unknown(&self.layout.blobs(), blobs).into_iter().map(|path| (path, Leak::Blob));
        let staged = staged.into_iter().map(|path| (path, Leak::Layer));
        staged.chain(layers).chain(blobs).collect()
    }

    /// Moves strays to the trash.
    pub fn sweep(&self, strays: &[(PathBuf, Leak)]) -> Result<(), LayerError> {
        strays.iter().try_for_each(|(path, kind)| {
            let trashed = self.trash(path);
            kind.note(&trashed);
            trashed
        })
    }
}

/// What a directory has beside the ids that are known.
fn unknown(directory: &Path, known: impl Fn(&Digest) -> bool) -> Vec<PathBuf> {
    let mut paths = children(directory);
    paths.retain(|path| !id_of(path).is_some_and(|id| known(&id)));
    paths
}

/// The id in the name of a layer or blob, also of one in quarantine.
pub(super) fn id_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    let digits = name.split_once('.').map_or(name, |(digits, _)| digits);
    Digest::parse(&format!("sha256:{digits}")).ok()
}

pub(super) fn absent(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

pub(super) fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

pub(super) fn sync_directory(path: &Path) -> Result<(), LayerError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(LayerError::io("sync", path))
}
