//! Taking away what an entry replaces or a whiteout hides. What does not live here: what decides that.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::super::error::LayerError;
use super::super::tar::Entry;
use super::super::tree;
use super::Applier;

/// Removes a name and all below it. Depth is bounded by `Tree`.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let directory = tree::open_directory(parent, name)?;
    for child in names(directory.as_fd())? {
        remove(directory.as_fd(), &child)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// The names in a directory.
pub fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// The paths of a set below one path.
pub fn below<'a>(set: &'a BTreeSet<Vec<u8>>, path: &[u8]) -> impl Iterator<Item = &'a Vec<u8>> + use<'a> {
    let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
    let start = (Bound::Included(prefix.clone()), Bound::Unbounded);
    set.range::<Vec<u8>, _>(start).take_while(move |at| at.starts_with(&prefix))
}

impl Applier {
    /// In a merged view: removes a name, but nothing that this archive added.
    pub(super) fn hide_merged(
        &mut self,
        name: &[u8],
        entry: &Entry,
        is_directory: bool,
    ) -> Result<(), LayerError> {
        let here = self.tree.here().try_clone_to_owned();
        let here = here.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let here = here.map_err(LayerError::apply("open", &entry.path))?;
        let path = self.tree.path_of(name);
        if self.known.is_purged(&path) {
            return Ok(());
        }
        self.purge_child(here.as_fd(), name, &path, is_directory)
            .map_err(LayerError::apply("hide", &entry.path))
    }

    /// Removes everything in a directory that this archive did not add.
    pub(super) fn purge(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
        if !self.known.purged.insert(path.to_vec()) {
            return Ok(());
        }
        for name in names(directory)? {
            let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let child = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            self.purge_child(directory, &name, &child, is_directory)?;
        }
        Ok(())
    }

    fn purge_child(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        is_directory: bool,
    ) -> Result<(), Errno> {
        let added = self.known.added.contains(path);
        let holds_added = below(&self.known.added, path).next().is_some();
        if !added && !holds_added {
            return remove(parent, name);
        }
        if !is_directory {
            return Ok(());
        }
        let directory = tree::open_directory(parent, name)?;
        if !added {
            // It is hidden, and made anew as the parent of what was added: nothing of the old one remains.
            reset(directory.as_fd())?;
            self.known.times.insert(path.to_vec(), (0, 0));
            self.known.added.insert(path.to_vec());
        }
        self.purge(directory.as_fd(), path)
    }
}

fn reset(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fchown(directory, Some(Uid::ROOT), Some(Gid::ROOT))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(0o755))?;
    clear_xattrs(directory)
}

/// Removes the attributes that an image brought.
pub fn clear_xattrs(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in super::super::restore::xattr_names(directory)? {
        rustix::fs::fremovexattr(directory, name.as_slice())?;
    }
    Ok(())
}
