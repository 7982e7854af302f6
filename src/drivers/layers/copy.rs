//! A directory of a mounted image, copied with everything that an image can say of it. What does not live here: what the
//! copy is for.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use berth_sys::path::Root;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::{LayerError, shown};
use super::tar::XATTR_MAX;
use super::tree::{self, DEPTH_MAX};
use super::{Layers, apply, give_to, restore};
use crate::pods::spec::UserNamespace;

/// Bytes between two looks at the file system.
const LOOK_EVERY: u64 = 16 << 20;

impl Layers {
    /// Copies the directory `path` of a mounted root to `to`, which it makes. The path is found inside of the root, whatever
    /// links lead there. Where nothing is, `to` is empty and belongs to root, of the user namespace if there is one. Blocks.
    pub fn copy_directory(
        &self,
        root: &OwnedFd,
        path: &Path,
        to: &Path,
        user: Option<&UserNamespace>,
    ) -> Result<(), LayerError> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(to);
        made.map_err(LayerError::io("make", to))?;
        let failed = |source| LayerError::SubPath { path: path.to_path_buf(), source };
        let inside = Root::open(root.try_clone().map_err(failed)?);
        match inside.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))
                    .and_then(|()| user.map_or(Ok(()), |user| give_to(user, to)))
                    .map_err(LayerError::io("set the owner of", to))
            }
            from => {
                let top = File::open(to).map_err(LayerError::io("open", to))?.into();
                let copy = Copy { layers: self, top, linked: HashMap::new(), path: Vec::new(), unlooked: 0 };
                copy.all(&from.map_err(failed)?)
            }
        }
    }
}

struct Copy<'a> {
    layers: &'a Layers,
    top: OwnedFd,
    /// The first copy of each inode with several names, from the top.
    linked: HashMap<u64, Vec<u8>>,
    path: Vec<u8>,
    /// Bytes since the last look at the file system.
    unlooked: u64,
}

impl Copy<'_> {
    fn all(mut self, from: &OwnedFd) -> Result<(), LayerError> {
        let to = self.top.try_clone().map_err(LayerError::io("open", "/"))?;
        self.below(from.as_fd(), to.as_fd(), 0)
    }

    /// What is in a directory, and then what is said of the directory itself.
    fn below(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), LayerError> {
        let above = self.path.len();
        for entry in Dir::read_from(from).map_err(|errno| self.failed("read", errno))? {
            let entry = entry.map_err(|errno| self.failed("read", errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.one(from, to, name, depth)?;
            self.path.truncate(above);
        }
        copy_attributes(from, to).map_err(|errno| self.failed("copy the attributes of", errno))
    }

    fn one(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> Result<(), LayerError> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| self.failed("look at", errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let pair = || -> Result<_, Errno> {
                if depth == DEPTH_MAX {
                    return Err(Errno::NAMETOOLONG);
                }
                let made = tree::make_directory(to, name.to_bytes())?;
                Ok((tree::open_directory(from, name.to_bytes())?, made))
            };
            let (from, to) = pair().map_err(|errno| self.failed("copy", errno))?;
            return self.below(from.as_fd(), to.as_fd(), depth + 1);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&stat.st_ino) {
                let linked = rustix::fs::linkat(&self.top, first.as_slice(), to, name, AtFlags::empty());
                return linked.map_err(|errno| self.failed("link", errno));
            }
            self.linked.insert(stat.st_ino, self.path.clone());
        }
        if kind == FileType::RegularFile {
            return self.file(from, to, name, stat.st_size.cast_unsigned());
        }
        copy_node(from, to, name, &stat).map_err(|errno| self.failed("copy", errno))
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        size: u64,
    ) -> Result<(), LayerError> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || -> Result<(File, File), Errno> {
            let from = rustix::fs::openat(from, name, read, Mode::empty())?;
            Ok((from.into(), rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?.into()))
        };
        let (from, to) = open().map_err(|errno| self.failed("copy", errno))?;
        self.data(&from, &to)?;
        let finish =
            rustix::fs::ftruncate(&to, size).and_then(|()| copy_attributes(from.as_fd(), to.as_fd()));
        finish.map_err(|errno| self.failed("copy the attributes of", errno))
    }

    fn data(&mut self, from: &File, to: &File) -> Result<(), LayerError> {
        let mut at = 0;
        while let Some(piece) = copy_piece(from, to, at).map_err(|source| self.failed("copy", source))? {
            at = piece.end;
            self.unlooked += piece.end - piece.start;
            if self.unlooked >= LOOK_EVERY {
                self.unlooked = 0;
                self.layers.check_room(to.as_fd(), &String::from_utf8_lossy(&self.path))?;
            }
        }
        Ok(())
    }

    fn failed(&self, verb: &'static str, source: impl Into<io::Error>) -> LayerError {
        LayerError::Apply { verb, path: shown(&self.path), source: source.into() }
    }
}

/// Copies what comes first at or behind an offset and is no hole. None: nothing is left.
fn copy_piece(from: &File, mut to: &File, at: u64) -> io::Result<Option<Range<u64>>> {
    let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        start => start?,
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    for file in [from, to] {
        rustix::fs::seek(file, SeekFrom::Start(start))?;
    }
    let copied = io::copy(&mut from.take((end - start).min(LOOK_EVERY)), &mut to)?;
    Ok((copied > 0).then_some(start..start + copied))
}

/// A link, pipe, socket or device.
fn copy_node(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode & 0o7777));
    if kind == FileType::Symlink {
        rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, to, name)?;
    } else {
        rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
    }
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(to, name, &apply::times(tree::mtime(stat)), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, mode, attributes and time of an open file or directory.
pub(super) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for name in restore::xattr_names(from)? {
        let mut value = vec![0; XATTR_MAX];
        let len = rustix::fs::fgetxattr(from, name.as_slice(), value.as_mut_slice())?;
        rustix::fs::fsetxattr(to, name.as_slice(), &value[..len], XattrFlags::empty())?;
    }
    apply::set_time(to, tree::mtime(&stat))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};

    use super::super::Config;
    use super::*;
    use crate::containers::spec::IdMapping;
    use crate::drivers::trash::Trash;
    use crate::layout::Layout;

    struct Place {
        layers: Layers,
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path().join("cache"), dir.path().join("state"));
            let layers = Layers::open(&layout, &Config::default(), Trash::new(&layout)).unwrap();
            fs::create_dir(dir.path().join("root")).unwrap();
            Self { layers, dir }
        }

        fn path(&self, path: &str) -> std::path::PathBuf {
            self.dir.path().join(path)
        }

        fn copy(&self, path: &str, to: &str, user: Option<&UserNamespace>) -> Result<(), LayerError> {
            let root = File::open(self.path("root")).unwrap().into();
            self.layers.copy_directory(&root, Path::new(path), &self.path(to), user)
        }

        fn seal(&self, path: &str) -> super::super::Sealed {
            let root = OwnedFd::from(File::open(self.path(path)).unwrap());
            super::super::seal::of_disk(root.as_fd(), &mut |_| ()).unwrap()
        }
    }

    #[test]
    fn a_copy_is_the_same_to_the_last_attribute() {
        let place = Place::new();
        let data = place.path("root/data");
        fs::create_dir_all(data.join("a/b")).unwrap();
        fs::write(data.join("a/file"), vec![7; 300_000]).unwrap();
        fs::hard_link(data.join("a/file"), data.join("a/b/same")).unwrap();
        fs::write(data.join("empty"), "").unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, data.join("pipe"), Mode::from_raw_mode(0o640)).unwrap();
        rustix::fs::setxattr(data.join("a"), "user.x", b"1", XattrFlags::empty()).unwrap();
        for (path, uid) in [("a", 33), ("link", 34), ("pipe", 35), ("empty", 36), ("", 37)] {
            std::os::unix::fs::lchown(data.join(path), Some(uid), Some(uid + 1)).unwrap();
        }
        fs::set_permissions(data.join("empty"), PermissionsExt::from_mode(0o4711)).unwrap();
        let sparse = File::create(data.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"far", 1 << 39).unwrap();
        let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        File::open(data.join("a")).unwrap().set_times(old).unwrap();
        drop(sparse);
        place.copy("/data", "copy", None).unwrap();
        let (sparse, copied) = (data.join("sparse"), place.path("copy/sparse"));
        let (before, after) = (fs::metadata(&sparse).unwrap(), fs::metadata(&copied).unwrap());
        assert_eq!((before.len(), before.blocks()), (after.len(), after.blocks()));
        // A terabyte of nothing takes long to read.
        fs::remove_file(sparse).unwrap();
        fs::remove_file(copied).unwrap();
        for path in [&data, &place.path("copy")] {
            File::open(path).unwrap().set_times(old).unwrap();
        }
        assert_eq!(place.seal("root/data"), place.seal("copy"));
        assert!(fs::symlink_metadata(place.path("copy/pipe")).unwrap().file_type().is_fifo());
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let place = Place::new();
        fs::create_dir(place.path("secret")).unwrap();
        fs::write(place.path("secret/file"), "the node's").unwrap();
        fs::create_dir_all(place.path("root/inside")).unwrap();
        fs::write(place.path("root/inside/file"), "the image's").unwrap();
        symlink("../../inside", place.path("root/up")).unwrap();
        symlink(place.path("secret"), place.path("root/absolute")).unwrap();
        symlink("../../secret", place.path("root/out")).unwrap();
        symlink("/proc/self/root", place.path("root/magic")).unwrap();
        for (number, path) in ["/up", "/../inside", "inside"].into_iter().enumerate() {
            let to = format!("to{number}");
            place.copy(path, &to, None).unwrap();
            assert_eq!(fs::read_to_string(place.path(&to).join("file")).unwrap(), "the image's", "{path}");
        }
        for (number, path) in ["/absolute", "/out", "/magic", "/none"].into_iter().enumerate() {
            let to = format!("empty{number}");
            place.copy(path, &to, None).unwrap();
            assert_eq!(fs::read_dir(place.path(&to)).unwrap().count(), 0, "{path}");
        }
        let error = place.copy("/inside/file", "file", None).unwrap_err();
        assert!(matches!(error, LayerError::SubPath { .. }), "{error:?}");
    }

    #[test]
    fn what_is_not_there_is_of_the_user_namespaces_root() {
        let place = Place::new();
        let map = || vec![IdMapping { container_id: 0, host_id: 100_000, length: 65_536 }];
        let user = UserNamespace { uids: map(), gids: map() };
        place.copy("/none", "new", Some(&user)).unwrap();
        let new = fs::metadata(place.path("new")).unwrap();
        assert_eq!((new.uid(), new.gid(), new.mode() & 0o7777), (100_000, 100_000, 0o755));
        // What is there shows its ids as the mount has mapped them.
        fs::create_dir(place.path("root/there")).unwrap();
        chown(place.path("root/there"), Some(100_033), Some(100_034)).unwrap();
        place.copy("/there", "copy", Some(&user)).unwrap();
        let copy = fs::metadata(place.path("copy")).unwrap();
        assert_eq!((copy.uid(), copy.gid()), (100_033, 100_034));
    }
}
