//! Everything that can be seen of a tree from outside, to be compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::ids::Digest;

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    /// Of anything but directories.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Of devices.
    pub device: u64,
    /// Digest of a file, target of a link.
    pub content: String,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, that names the same inode.
    pub same_as: PathBuf,
    /// Changes with whatever is done to the inode; only for a tree that nobody may touch.
    pub changed: (i64, i64),
}

pub type Snapshot = BTreeMap<PathBuf, Seen>;

/// The tree below a directory, itself as the empty path.
pub fn take(root: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut inodes = HashMap::new();
    walk(root, Path::new(""), &mut all, &mut inodes);
    all
}

/// Without what differs between two honest copies of one tree.
pub fn copied(mut snapshot: Snapshot) -> Snapshot {
    for seen in snapshot.values_mut() {
        seen.changed = (0, 0);
    }
    snapshot
}

fn walk(root: &Path, path: &Path, all: &mut Snapshot, inodes: &mut HashMap<(u64, u64), PathBuf>) {
    let full = if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) };
    let meta = std::fs::symlink_metadata(&full).unwrap();
    let same_as = match meta.is_dir() {
        true => path.to_path_buf(),
        false => inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| path.to_path_buf()).clone(),
    };
    all.insert(path.to_path_buf(), look(&full, &meta, same_as));
    if meta.is_dir() {
        let mut names: Vec<OsString> =
            std::fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &path.join(name), all, inodes);
        }
    }
}

fn look(full: &Path, meta: &std::fs::Metadata, same_as: PathBuf) -> Seen {
    let kind = meta.file_type();
    let (kind, content) = if kind.is_dir() {
        ("directory", String::new())
    } else if kind.is_symlink() {
        ("link", format!("{:?}", std::fs::read_link(full).unwrap()))
    } else if kind.is_file() {
        ("file", Digest::of(&std::fs::read(full).unwrap()).to_string())
    } else if kind.is_fifo() {
        ("pipe", String::new())
    } else if kind.is_block_device() {
        ("block device", String::new())
    } else {
        ("character device", String::new())
    };
    Seen {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        size: if meta.is_dir() { 0 } else { meta.size() },
        mtime: (meta.mtime(), meta.mtime_nsec()),
        device: meta.rdev(),
        content,
        xattrs: xattrs(full),
        same_as,
        changed: (meta.ctime(), meta.ctime_nsec()),
    }
}

fn xattrs(full: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 64 << 10];
    let len = rustix::fs::llistxattr(full, names.as_mut_slice()).unwrap_or_default();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0_u8; 64 << 10];
        let len = rustix::fs::lgetxattr(full, name, value.as_mut_slice()).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}
