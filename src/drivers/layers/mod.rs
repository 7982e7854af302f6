//! The layer cache on disk: unpacking, whiteouts, overlay roots. What does not live here: which layers an image has.

mod apply;
mod blobs;
mod copy;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod incoming;
mod inflate;
mod overlay;
mod restore;
mod seal;
mod spool;
mod staging;
pub mod tar;
#[cfg(test)]
pub mod tests;
mod tree;
mod unpack;
mod volume;
mod whiteout;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use self::staging::Growing;
use crate::drivers::digests::{Digests, Stream};
use crate::drivers::id_map;
use crate::drivers::trash::Trash;
use crate::ids::Digest;
use crate::layout::Layout;
use crate::pods::spec::UserNamespace;

pub use blobs::BlobCopy;
pub use error::LayerError;
pub use incoming::Incoming;
pub use restore::{Layer, Restoration};
pub use seal::{Seal, Sealed};
pub use spool::Spool;
pub use staging::Staged;
pub use unpack::Unpacked;

/// Layers of one image (overlay itself takes 500).
pub const LAYERS_MAX: usize = 128;

/// `[layers]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Unpacking ends with an error when the file system has less than this left, in MiB.
    pub reserve_mib: u64,
    /// A layer of more than 1 GiB unpacks to at most so many times its compressed size.
    pub ratio_max: u64,
    /// Bytes of layers that arrive slowly are kept until the layer is unpacked, so many MiB at most; 0: none.
    pub spool_mib: u64,
    /// Packed layers are kept too, for mirrors that serve them to other nodes.
    pub keep_blobs: bool,
    /// The most that a container's writable layer may take, in MiB; 0: as much as there is.
    pub writable_limit_mib: u64,
}

impl Default for Config {
    fn default() -> Self {
        // gzip's best is 1032 to 1.
        let (keep_blobs, writable_limit_mib) = (false, 0);
        Self { reserve_mib: 64, ratio_max: 1100, spool_mib: 4096, keep_blobs, writable_limit_mib }
    }
}

/// How a container sees layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// Owners are shown under the ids of this user namespace.
    pub user: Option<&'a UserNamespace>,
    /// Every file has this SELinux label.
    pub label: Option<&'a str>,
}

/// The cache: directories below `Layout::root`.
#[derive(Clone, Debug)]
pub struct Layers {
    layout: Layout,
    reserve: u64,
    ratio: u64,
    digests: Digests,
    spools: Arc<spool::Budget>,
    keep_blobs: bool,
    trash: Trash,
    growing: Growing,
    /// Found out when it is first asked for: see `maps_ids`.
    maps_ids: OnceLock<Result<(), String>>,
}

impl Layers {
    /// Makes the directories, mode 0700: no container's user can look into a layer.
    pub fn open(layout: &Layout, config: &Config, trash: Trash) -> Result<Self, LayerError> {
        use std::os::unix::fs::DirBuilderExt;
        let empty = volume::EMPTY.map(|name| layout.empty(name));
        let ours = [layout.layers(), layout.blobs(), layout.staging(), layout.spools(), layout.trash()];
        for path in ours.into_iter().chain([layout.quarantine()]).chain(empty) {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&path).map_err(LayerError::io("make", &path))?;
        }
        let spools = spool::Budget::new(config.spool_mib.saturating_mul(1 << 20));
        let (layout, growing, maps_ids) = (layout.clone(), Growing::default(), OnceLock::new());
        let (reserve, ratio, keep_blobs) = (config.reserve_mib << 20, config.ratio_max, config.keep_blobs);
        let digests = Digests::new();
        let layers = Self { layout, reserve, ratio, digests, spools, keep_blobs, trash, growing, maps_ids };
        layers.sweep_spools()?;
        Ok(layers)
    }

    /// For the digest of a blob that arrives: hashed together with what is unpacked meanwhile.
    pub fn digest_stream(&self) -> Stream {
        self.digests.stream()
    }

    /// A detached overlay of layers (bottom first) with `upper` as its writable layer, which gets the root directory's
    /// metadata. `work` must be empty. Attach it with move_mount(2); dropping it unmounts it.
    ///
    /// With a user namespace the layers show under its ids without a change on disk; the writable layer's files belong
    /// on disk to whom they belong on the host, so that no file of a container is ever the host's root's.
    pub fn root(
        &self,
        layers: &[Digest],
        (upper, work): (&Path, &Path),
        View { user, label }: View<'_>,
    ) -> Result<OwnedFd, LayerError> {
        // The layer of restored directories comes on top of a full image.
        if layers.len() > LAYERS_MAX + 1 {
            return Err(LayerError::TooManyLayers(layers.len()));
        }
        match layers.last() {
            Some(top) => copy_root(&self.open_layer(top)?, upper),
            None => rustix::fs::chmod(upper, Mode::from_raw_mode(0o755)),
        }
        .map_err(LayerError::io("set the metadata of", upper))?;
        if let Some(user) = user {
            give_to(user, upper).map_err(LayerError::io("set the owner of", upper))?;
        }
        let mut lower: Vec<_> = layers.iter().rev().map(|id| self.layout.layer(id)).collect();
        if lower.is_empty() {
            // An image may have no layers; overlay wants one.
            lower.push(self.layout.empty(volume::EMPTY[0]));
        }
        let cache = self.layout.layers();
        let mapped = user.map(|user| overlay::Mapped { layers: &cache, user });
        let writable = Some(overlay::Writable { upper, work });
        overlay::mount(&overlay::Stack { lower, writable, mapped, label })
    }

    /// Whether roots can be shown under the ids of a user namespace; else why not, for a user of the node.
    pub fn maps_ids(&self) -> Result<(), &str> {
        let found = self.maps_ids.get_or_init(|| id_map::check(&self.layout.layers()));
        found.as_ref().copied().map_err(String::as_str)
    }

    /// One layer's root, for looking at.
    pub fn open_layer(&self, id: &Digest) -> Result<OwnedFd, LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(self.layout.layer(id), flags, Mode::empty())
            .map_err(|errno| LayerError::Missing { layer: id.clone(), source: errno.into() })
    }

    /// Reads a whole layer from the disk, and tells of the bytes as they come. Blocks for as long as that takes.
    pub fn inspect(&self, id: &Digest, progress: &mut dyn FnMut(u64)) -> Result<Sealed, LayerError> {
        seal::of_disk(self.open_layer(id)?.as_fd(), progress)
    }

    /// A layer with the directories that it implies, and those in which it has whiteouts.
    pub fn layer(
        &self,
        id: &Digest,
        implied: Arc<BTreeSet<Vec<u8>>>,
        hiding: Arc<BTreeSet<Vec<u8>>>,
    ) -> Result<Layer, LayerError> {
        Ok(Layer { root: self.open_layer(id)?, implied, hiding })
    }

    /// See `restore`: the layer must be unpacked again, with its parents in view.
    pub fn follows_links_below(&self, layers: &[Layer], index: usize) -> Result<bool, LayerError> {
        restore::follows_links_below(layers, index)
    }

    /// See `restore`: the directories to put on top of a stack, bottom first.
    pub fn restoration(&self, layers: &[Layer]) -> Result<Option<Restoration>, LayerError> {
        restore::restoration(layers)
    }

    /// Makes a layer of restored directories, ready to `commit` under its id.
    pub fn restore(&self, restoration: &Restoration) -> Result<Staged, LayerError> {
        let staged = Staged::layer(self)?;
        restoration.make(&staged.open()?)?;
        Ok(staged)
    }
}

/// Makes the directory's owner inside the user namespace its owner on the host; one that it does not have becomes its root.
fn give_to(user: &UserNamespace, directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let inside = std::fs::metadata(directory)?;
    let owner = user.on_host(inside.uid(), inside.gid()).or_else(|| user.on_host(0, 0));
    let (uid, gid) = owner.ok_or(std::io::ErrorKind::InvalidInput)?;
    std::os::unix::fs::chown(directory, Some(uid), Some(gid))
}

fn copy_root(from: &OwnedFd, to: &Path) -> Result<(), rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    copy::copy_attributes(from.as_fd(), rustix::fs::open(to, flags, Mode::empty())?.as_fd())
}
