//! Directories that a layer implies but does not describe: finding out what the layers below say of them, and making
//! the small top layer that says it again. What does not live here: applying archives.
//!
//! A layer is unpacked by itself. If its archive has `usr/bin/x` and no entry for `usr`, overlay would show the made-up
//! `usr` of that layer; a sequential unpack would have kept the one below.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::{is_images, set_time};
use super::error::LayerError;
use super::tree;
use crate::ids::{Digest, Hasher};

/// One layer of an image, unpacked.
pub struct Layer {
    /// Its root.
    pub root: OwnedFd,
    /// Real paths of the directories it implies; the root is the empty path.
    pub implied: Arc<BTreeSet<Vec<u8>>>,
    /// Real paths of the directories in which it has whiteouts.
    pub hiding: Arc<BTreeSet<Vec<u8>>>,
}

/// What a path is in the layers below some point.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Symlink,
    Other,
    /// A directory, with the layer that describes it and whether a higher one only implies it.
    Directory {
        described: Option<usize>,
        implied_above: bool,
    },
}

/// What is said of a directory.
#[derive(Debug, PartialEq, Eq)]
struct Description {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The contents of a restoring layer.
#[derive(Debug, Default)]
pub struct Restoration(BTreeMap<Vec<u8>, Description>);

/// Whether the layer at `index` implies a directory where the layers below have a symbolic link: then its files belong
/// elsewhere, and only an unpack with the parents in view puts them there.
pub fn follows_links_below(layers: &[Layer], index: usize) -> Result<bool, LayerError> {
    for path in layers[index].implied.iter() {
        let found = find(&layers[..index], path).map_err(LayerError::apply("look up", path))?;
        if found == Found::Symlink {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the stack (bottom first) needs on top of it; nothing for most images.
pub fn restoration(layers: &[Layer]) -> Result<Option<Restoration>, LayerError> {
    let paths: BTreeSet<&Vec<u8>> = layers.iter().flat_map(|layer| layer.implied.iter()).collect();
    let mut wanted = BTreeSet::new();
    for path in paths {
        let found = find(layers, path).map_err(LayerError::apply("look up", path))?;
        if let Found::Directory { described: Some(_), implied_above: true } = found {
            wanted.extend(ancestors(path));
        }
    }
    // Overlay lists a directory that only one layer has as it is, with its whiteouts; one more layer makes it look.
    for path in layers.iter().flat_map(|layer| layer.hiding.iter()).collect::<BTreeSet<_>>() {
        if layers_at(layers, path).map_err(LayerError::apply("look up", path))? == 1 {
            wanted.extend(ancestors(path));
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut restoration = Restoration::default();
    for path in wanted {
        let description = describe_merged(layers, &path).map_err(LayerError::apply("read", &path))?;
        restoration.0.insert(path, description);
    }
    Ok(Some(restoration))
}

fn describe_merged(layers: &[Layer], path: &[u8]) -> Result<Description, Errno> {
    match find(layers, path)? {
        Found::Directory { described: Some(index), .. } => describe(&layers[index], path),
        // Implied wherever it stands, or taken away meanwhile: what a sequential unpack makes up.
        _ => Ok(Description { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: BTreeMap::new() }),
    }
}

/// The path itself, all its parents, and the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let ends: Vec<usize> = std::iter::once(0).chain(ends).chain([path.len()]).collect();
    let path = path.to_vec();
    ends.into_iter().map(move |end| path[..end].to_vec())
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// What one layer has at a path.
struct Here {
    what: What,
    /// The layers below do not show through.
    hides: bool,
    /// It is a directory, and nothing of the layers below shows in it.
    opaque: bool,
}

enum What {
    Nothing,
    Symlink,
    Other,
    Directory,
}

fn find(layers: &[Layer], path: &[u8]) -> Result<Found, Errno> {
    let mut implied_above = false;
    let mut is_directory = false;
    for (index, layer) in layers.iter().enumerate().rev() {
        let here = look(layer.root.as_fd(), path)?;
        match here.what {
            What::Nothing => {}
            // Below a directory only a directory shows through.
            What::Symlink | What::Other if is_directory => break,
            What::Symlink => return Ok(Found::Symlink),
            What::Other => return Ok(Found::Other),
            What::Directory if !layer.implied.contains(path) => {
                return Ok(Found::Directory { described: Some(index), implied_above });
            }
            What::Directory => (is_directory, implied_above) = (true, true),
        }
        if here.hides {
            break;
        }
    }
    Ok(if is_directory { Found::Directory { described: None, implied_above } } else { Found::Nothing })
}

/// How many layers overlay merges into the directory at a path.
fn layers_at(layers: &[Layer], path: &[u8]) -> Result<usize, Errno> {
    let mut count = 0;
    for layer in layers.iter().rev() {
        let here = look(layer.root.as_fd(), path)?;
        count += usize::from(matches!(here.what, What::Directory));
        if here.hides || here.opaque {
            break;
        }
    }
    Ok(count)
}

fn look(root: BorrowedFd<'_>, path: &[u8]) -> Result<Here, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut hides = false;
    let mut ahead = names(path).peekable();
    while let Some(name) = ahead.next() {
        let parent = at.as_ref().map_or(root, |fd| fd.as_fd());
        // An opaque directory hides what lies below its children, but its own metadata still may come from below.
        hides |= tree::is_opaque(parent)?;
        match tree::open_directory(parent, name) {
            Ok(fd) => at = Some(fd),
            Err(Errno::NOENT) => {
                return Ok(Here { what: What::Nothing, hides, opaque: false });
            }
            Err(Errno::NOTDIR | Errno::LOOP) => return look_at_leaf(parent, name, ahead.peek().is_none()),
            Err(errno) => return Err(errno),
        }
    }
    let opaque = tree::is_opaque(at.as_ref().map_or(root, |fd| fd.as_fd()))?;
    Ok(Here { what: What::Directory, hides, opaque })
}

/// Something that is no directory: the path itself, or a parent of it, which then does not exist here nor below.
fn look_at_leaf(parent: BorrowedFd<'_>, name: &[u8], last: bool) -> Result<Here, Errno> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        _ if tree::is_whiteout(&stat) => What::Nothing,
        FileType::Symlink if last => What::Symlink,
        _ if last => What::Other,
        _ => What::Nothing,
    };
    Ok(Here { what, hides: true, opaque: false })
}

fn describe(layer: &Layer, path: &[u8]) -> Result<Description, Errno> {
    let mut at = layer.root.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    for name in names(path) {
        at = tree::open_directory(at.as_fd(), name)?;
    }
    let stat = rustix::fs::fstat(&at)?;
    let mut xattrs = BTreeMap::new();
    for name in xattr_names(at.as_fd())? {
        let mut value = vec![0; super::tar::XATTR_MAX];
        let len = rustix::fs::fgetxattr(&at, name.as_slice(), value.as_mut_slice())?;
        value.truncate(len);
        xattrs.insert(name, value);
    }
    let mode = stat.st_mode & 0o7777;
    Ok(Description { mode, uid: stat.st_uid, gid: stat.st_gid, mtime: tree::mtime(&stat), xattrs })
}

/// Names of the extended attributes that belong to the image.
pub fn xattr_names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut list = vec![0_u8; super::tar::XATTR_MAX];
    let len = match rustix::fs::flistxattr(directory, list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    let names = list[..len].split(|byte| *byte == 0).filter(|name| is_images(name));
    Ok(names.map(<[u8]>::to_vec).collect())
}

impl Restoration {
    /// Equal contents, equal id: images share it.
    pub fn id(&self) -> Digest {
        let mut hash = Hasher::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(b"berth restored directories 1");
        for (path, description) in &self.0 {
            field(path);
            let Description { mode, uid, gid, mtime, xattrs } = description;
            field(format!("{mode} {uid} {gid} {} {} {}", mtime.0, mtime.1, xattrs.len()).as_bytes());
            for (name, value) in xattrs {
                field(name);
                field(value);
            }
        }
        hash.finish()
    }

    /// Makes them below an empty directory.
    pub fn make(&self, root: &OwnedFd) -> Result<(), LayerError> {
        // Parents sort before their children, so they exist; and children are made before a parent gets its times.
        for path in self.0.keys().filter(|path| !path.is_empty()) {
            let made = rustix::fs::mkdirat(root, path.as_slice(), Mode::from_raw_mode(0o700));
            made.map_err(LayerError::apply("make", path))?;
        }
        for (path, description) in self.0.iter().rev() {
            set(root, path, description).map_err(LayerError::apply("restore", path))?;
        }
        Ok(())
    }
}

fn set(root: &OwnedFd, path: &[u8], description: &Description) -> Result<(), Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let directory = tree::open_directory(root.as_fd(), path)?;
    let owner = (Uid::from_raw(description.uid), Gid::from_raw(description.gid));
    rustix::fs::fchown(&directory, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(description.mode))?;
    for (name, value) in &description.xattrs {
        rustix::fs::fsetxattr(&directory, name.as_slice(), value, XattrFlags::empty())?;
    }
    set_time(directory.as_fd(), description.mtime)
}
