//! Applies the entries of one archive to a directory: files, links, devices, whiteouts and their metadata.
//! What does not live here: where the archive comes from (unpack), how paths are walked (tree).

mod attributes;
mod content;
mod directories;
mod remove;

use std::collections::BTreeSet;
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use self::attributes::Attributes;
pub use self::attributes::{is_images, set_time, times};
use self::directories::Directories;
use self::remove::remove;
use super::error::LayerError;
use super::seal::Contents;
use super::tar::{Entry, Kind, Reader};
use super::tree::{self, Made, Names, Tree};
use super::whiteout::{Meaning, meaning};

/// Files of so many bytes are written back to disk at once. They are few, and most of all bytes.
const LARGE: u64 = 1 << 20;

/// What lies under the directory that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing: the directory becomes an overlay's lower layer as it is, whiteouts in overlay's form.
    Alone,
    /// The layers below, merged: the directory is an overlay, and what a whiteout hides is removed from it.
    Merged,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Directories that the archive names only as parents: their metadata is whatever the layers below say.
    pub implied: BTreeSet<Vec<u8>>,
    /// Directories with whiteouts in them.
    pub hiding: BTreeSet<Vec<u8>>,
    /// Of files, for the layer's seal; in a merged view inodes are overlay's, and contents are read again.
    pub contents: Contents,
}

/// Applies every entry up to the archive's end. `root` is an empty directory (or the overlay) of mode 0755.
pub fn apply<R: BufRead>(root: OwnedFd, view: View, reader: &mut Reader<R>) -> Result<Applied, LayerError> {
    let mut tree = Tree::new(root);
    let mut known = Directories::default();
    if view == View::Merged {
        tree.remember_times()?;
    } else {
        known.implied.insert(Vec::new());
        known.set_time(Vec::new(), (0, 0))?;
    }
    let mut applier = Applier { tree, view, known, contents: Contents::new() };
    while let Some(entry) = reader.next_entry()? {
        applier.entry(&entry, reader)?;
    }
    applier.finish()
}

struct Applier {
    tree: Tree,
    view: View,
    known: Directories,
    contents: Contents,
}

impl Applier {
    fn entry<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), LayerError> {
        let names = Names::parse(&entry.path)?;
        let meaning = meaning(&entry.path, names.all())?;
        if meaning == Meaning::Bookkeeping {
            return Ok(());
        }
        let Some((name, parents)) = names.split() else {
            return self.root(entry);
        };
        match meaning {
            Meaning::Opaque => {
                self.enter(parents)?;
                self.opaque(entry)
            }
            Meaning::Hides(hidden) => {
                self.enter(parents)?;
                self.hide(hidden, entry)
            }
            _ => self.plain(entry, name, parents, reader),
        }
    }

    fn plain<R: BufRead>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        parents: &[&[u8]],
        reader: &mut Reader<R>,
    ) -> Result<(), LayerError> {
        if entry.kind == Kind::HardLink {
            return self.hard_link(entry, name, parents);
        }
        self.enter(parents)?;
        match entry.kind {
            Kind::Directory => self.directory(entry, name)?,
            Kind::File => self.file(entry, name, reader)?,
            Kind::Symlink => self.symlink(entry, name)?,
            Kind::CharDevice if entry.device == (0, 0) => return self.hide(name, entry),
            _ => self.node(entry, name)?,
        }
        self.note_added(name)
    }

    fn enter(&mut self, parents: &[&[u8]]) -> Result<(), LayerError> {
        let mut made = Vec::new();
        self.tree.enter(parents, &mut made)?;
        for Made { path, over_whiteout } in made {
            self.known.set_time(path.clone(), (0, 0))?;
            if self.view == View::Merged {
                self.known.add(path)?;
            } else if !over_whiteout {
                self.known.charge(&path)?;
                self.known.implied.insert(path);
            }
        }
        Ok(())
    }

    fn note_added(&mut self, name: &[u8]) -> Result<(), LayerError> {
        match self.view {
            View::Merged => self.known.add(self.tree.path_of(name)),
            View::Alone => Ok(()),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Directory {
            return Err(LayerError::entry(&entry.path, "the layer's root as its path, and is no directory"));
        }
        self.tree.enter(&[], &mut Vec::new())?;
        remove::clear_xattrs(self.tree.here()).map_err(LayerError::apply("replace", &entry.path))?;
        Attributes(entry).set_on(self.tree.here())?;
        self.known.implied.remove(&Vec::new());
        self.known.set_time(Vec::new(), entry.mtime)
    }

    fn directory(&mut self, entry: &Entry, name: &[u8]) -> Result<(), LayerError> {
        let path = self.tree.path_of(name);
        let fd = match tree::make_directory(self.tree.here(), name) {
            Err(Errno::EXIST) => self.existing_directory(entry, name)?,
            made => made.map_err(LayerError::apply("make the directory", &entry.path))?,
        };
        Attributes(entry).set_on(fd.as_fd())?;
        self.known.implied.remove(&path);
        self.known.set_time(path, entry.mtime)
    }

    /// A directory in the place of anything else hides what the layers below have there.
    fn existing_directory(&mut self, entry: &Entry, name: &[u8]) -> Result<OwnedFd, LayerError> {
        match tree::open_directory(self.tree.here(), name) {
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            opened => {
                let opened = opened.map_err(LayerError::apply("open", &entry.path))?;
                // The entry describes it anew: nothing of an older description stays.
                remove::clear_xattrs(opened.as_fd()).map_err(LayerError::apply("replace", &entry.path))?;
                return Ok(opened);
            }
        }
        self.clear(entry, name)?;
        let fd = tree::make_directory(self.tree.here(), name)
            .map_err(LayerError::apply("make the directory", &entry.path))?;
        if self.view == View::Alone {
            tree::set_opaque(fd.as_fd()).map_err(LayerError::apply("mark", &entry.path))?;
        }
        Ok(fd)
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<(), LayerError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = self.make(entry, name, |here| rustix::fs::openat(here, name, flags, mode))?;
        let content = content::write(&fd, entry, reader)?;
        if entry.size >= LARGE {
            // The sync at the end waits for less; if this fails, for as much as without it.
            let _ = berth_sys::writeback::start(fd.as_fd());
        }
        Attributes(entry).set_on(fd.as_fd())?;
        let stat = rustix::fs::fstat(&fd).map_err(LayerError::apply("stat", &entry.path))?;
        match content.filter(|_| self.view == View::Alone) {
            Some(content) => self.contents.insert(stat.st_ino, content),
            // A file that had the inode before may have left its own.
            None => self.contents.remove(&stat.st_ino),
        };
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, name: &[u8]) -> Result<(), LayerError> {
        self.make(entry, name, |here| rustix::fs::symlinkat(entry.link.as_slice(), here, name))?;
        Attributes(entry).set_at(self.tree.here(), name)
    }

    fn node(&mut self, entry: &Entry, name: &[u8]) -> Result<(), LayerError> {
        let kind = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(0o600);
        self.make(entry, name, |here| rustix::fs::mknodat(here, name, kind, mode, device))?;
        Attributes(entry).set_at(self.tree.here(), name)
    }

    /// Makes one new thing, in the place of whatever this archive had there before.
    fn make<T>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        make: impl Fn(std::os::fd::BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        let made = match make(self.tree.here()) {
            Err(Errno::EXIST) => {
                self.clear(entry, name)?;
                make(self.tree.here())
            }
            made => made,
        };
        made.map_err(LayerError::apply("make", &entry.path))
    }

    fn hard_link(&mut self, entry: &Entry, name: &[u8], parents: &[&[u8]]) -> Result<(), LayerError> {
        let target = Names::parse(&entry.link)?;
        let Some((target_name, target_parents)) = target.split() else {
            return Err(LayerError::entry(&entry.path, "the layer's root as the target of a hard link"));
        };
        if meaning(&entry.link, target.all())? != Meaning::Plain {
            return Err(LayerError::entry(&entry.path, "a whiteout as the target of a hard link"));
        }
        let missing = || LayerError::NeedsParents { path: super::error::shown(&entry.path) };
        self.tree.find(target_parents)?.ok_or_else(missing)?;
        let stat = match self.stat(target_name, entry)? {
            Some(stat) if !tree::is_whiteout(&stat) => stat,
            _ => return Err(missing()),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(LayerError::entry(&entry.path, "a directory as the target of a hard link"));
        }
        let from = self.tree.here().try_clone_to_owned().map_err(|source| LayerError::Apply {
            verb: "open the parent of",
            path: super::error::shown(&entry.link),
            source,
        })?;
        self.enter(parents)?;
        if let Some(old) = self.stat(name, entry)? {
            if (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            self.clear(entry, name)?;
        }
        rustix::fs::linkat(&from, target_name, self.tree.here(), name, AtFlags::empty())
            .map_err(LayerError::apply("link", &entry.path))?;
        self.note_added(name)
    }

    fn stat(&self, name: &[u8], entry: &Entry) -> Result<Option<Stat>, LayerError> {
        match rustix::fs::statat(self.tree.here(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(LayerError::apply("stat", &entry.path)(errno)),
        }
    }

    fn clear(&mut self, entry: &Entry, name: &[u8]) -> Result<(), LayerError> {
        let path = self.tree.path_of(name);
        remove(self.tree.here(), name).map_err(LayerError::apply("replace", &entry.path))?;
        self.known.forget(&path);
        Ok(())
    }

    fn hide(&mut self, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let Some(stat) = self.stat(name, entry)? else {
            return self.make_whiteout(name, entry);
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.view == View::Merged {
            return self.hide_merged(name, entry, is_directory);
        }
        if !is_directory {
            return Ok(());
        }
        let path = self.tree.path_of(name);
        let directory = tree::open_directory(self.tree.here(), name);
        let directory = directory.map_err(LayerError::apply("open", &entry.path))?;
        self.known.implied.remove(&path);
        tree::set_opaque(directory.as_fd()).map_err(LayerError::apply("mark", &entry.path))
    }

    fn make_whiteout(&mut self, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        if self.view == View::Merged {
            return Ok(());
        }
        let path = self.tree.path();
        if !self.known.hiding.contains(&path) {
            self.known.charge(&path)?;
            self.known.hiding.insert(path);
        }
        rustix::fs::mknodat(self.tree.here(), name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(LayerError::apply("hide", &entry.path))
    }

    fn opaque(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if self.view == View::Alone {
            return tree::set_opaque(self.tree.here()).map_err(LayerError::apply("mark", &entry.path));
        }
        let here = self.tree.here().try_clone_to_owned();
        let here = here.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let here = here.map_err(LayerError::apply("open", &entry.path))?;
        let path = self.tree.path();
        if self.known.is_purged(&path) {
            return Ok(());
        }
        self.purge(here.as_fd(), &path).map_err(LayerError::apply("hide what is below", &entry.path))
    }

    fn finish(mut self) -> Result<Applied, LayerError> {
        let mut times = self.tree.take_times();
        times.append(&mut self.known.times);
        for (path, mtime) in times {
            let names: Vec<_> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
            if self.tree.find(&names)?.is_some() && self.tree.path() == path {
                set_time(self.tree.here(), mtime).map_err(LayerError::apply("set the times of", &path))?;
            }
        }
        let Self { known: Directories { implied, hiding, .. }, contents, .. } = self;
        Ok(Applied { implied, hiding, contents })
    }
}
