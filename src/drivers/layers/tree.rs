//! Walks below the root of one layer, directory by directory, through file descriptors: the layer's in-root resolver.
//! A symbolic link is followed as if the layer were the whole file system, so that no path leads out of it.
//! What does not live here: what is done with the directories.
//!
//! Nobody else can change the tree meanwhile: it grows in a directory of mode 0700.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::error::LayerError;
use super::tar::{NAME_MAX, PATH_MAX};

/// Overlay's mark of a directory that hides what lies below it (kernel documentation, overlayfs.rst).
pub const OPAQUE: &str = "trusted.overlay.opaque";
const LINKS_MAX: usize = 40;
/// Names that links add to one path: a few links that lead to and fro would make each entry a long way.
const LINK_NAMES_MAX: usize = 512;
/// Below any usual limit of open files: the way holds one for each directory.
pub const DEPTH_MAX: usize = 512;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names on the way from the root of a layer, none of them empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<'a>(Vec<&'a [u8]>);

impl<'a> Names<'a> {
    /// Splits a path as an archive writes it; a leading slash means the root of the layer.
    pub fn parse(path: &'a [u8]) -> Result<Self, LayerError> {
        if path.len() > PATH_MAX {
            return Err(LayerError::entry(path, "a path longer than 4096 bytes"));
        }
        if path.contains(&0) {
            return Err(LayerError::entry(path, "a zero byte in its path"));
        }
        let names: Vec<_> =
            path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.contains(&&b".."[..]) {
            return Err(LayerError::entry(path, "a path that leads out of the layer"));
        }
        if names.iter().any(|name| name.len() > NAME_MAX) {
            return Err(LayerError::entry(path, "a name longer than 255 bytes"));
        }
        Ok(Self(names))
    }

    /// The directory and the last name; none for the root itself.
    pub fn split(&self) -> Option<(&'a [u8], &[&'a [u8]])> {
        self.0.split_last().map(|(name, parent)| (*name, parent))
    }

    /// All names.
    pub fn all(&self) -> &[&'a [u8]] {
        &self.0
    }
}

/// A directory on the way, made because an entry below it needs it.
pub struct Made {
    /// From the root, without links.
    pub path: Vec<u8>,
    /// It stands where this layer's whiteout stood, and so hides what lies below.
    pub over_whiteout: bool,
}

/// Times of modification by real path: seconds and nanoseconds.
pub type Times = BTreeMap<Vec<u8>, (i64, u32)>;

/// The root, and the real directories down to the one visited last.
pub struct Tree {
    root: OwnedFd,
    way: Vec<(Vec<u8>, OwnedFd)>,
    /// Times that directories had when they were first visited, where somebody wants to restore them.
    visited: Option<Times>,
}

impl Tree {
    /// `root` must be open for reading.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, way: Vec::new(), visited: None }
    }

    /// Remembers from now on the times of every directory that existed before it was visited.
    pub fn remember_times(&mut self) -> Result<(), LayerError> {
        let stat = rustix::fs::fstat(&self.root).map_err(LayerError::apply("stat", b"/"))?;
        self.visited = Some(Times::from([(Vec::new(), mtime(&stat))]));
        Ok(())
    }

    /// What was remembered.
    pub fn take_times(&mut self) -> Times {
        self.visited.take().unwrap_or_default()
    }

    /// The directory visited last.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Its real path from the root: names joined by slashes, empty for the root.
    pub fn path(&self) -> Vec<u8> {
        self.way.iter().map(|(name, _)| name.as_slice()).collect::<Vec<_>>().join(&b'/')
    }

    /// The real path of something in the directory visited last.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// Goes to a directory that must exist. `None`: it does not, or is none.
    pub fn find(&mut self, names: &[&[u8]]) -> Result<Option<()>, LayerError> {
        match self.walk(names, None) {
            Ok(()) => Ok(Some(())),
            Err(Stop::Missing | Stop::NotDirectory) => Ok(None),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Goes to a directory and makes what is missing on the way, mode 0755 and owned by root.
    pub fn enter(&mut self, names: &[&[u8]], made: &mut Vec<Made>) -> Result<(), LayerError> {
        match self.walk(names, Some(made)) {
            Ok(()) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(_) => Err(LayerError::entry(&names.join(&b'/'), "a parent that is no directory")),
        }
    }

    fn walk(&mut self, names: &[&[u8]], mut made: Option<&mut Vec<Made>>) -> Result<(), Stop> {
        let common = self.way.iter().zip(names).take_while(|((at, _), name)| at == *name).count();
        self.way.truncate(common);
        let mut ahead: Vec<Vec<u8>> = names[common..].iter().rev().map(|name| name.to_vec()).collect();
        let mut followed = Followed::default();
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    self.way.pop();
                    continue;
                }
                _ => {}
            }
            match open_directory(self.here(), &name) {
                Ok(fd) => self.visit(name, fd)?,
                Err(Errno::NOENT) => self.make(name, made.as_deref_mut())?,
                Err(Errno::NOTDIR | Errno::LOOP) => match self.link(&name)? {
                    Some(target) => {
                        self.follow(&target, &mut ahead, &mut followed)?;
                    }
                    None => self.replace_whiteout(name, made.as_deref_mut())?,
                },
                Err(errno) => return Err(self.failed("open", &name, errno)),
            }
        }
        Ok(())
    }

    fn visit(&mut self, name: Vec<u8>, fd: OwnedFd) -> Result<(), Stop> {
        if self.way.len() >= DEPTH_MAX {
            return Err(Stop::Failed(LayerError::entry(&self.path_of(&name), "more than 512 parents")));
        }
        let path = self.path_of(&name);
        if let Some(visited) = &mut self.visited {
            let stat =
                rustix::fs::fstat(&fd).map_err(LayerError::apply("stat", &path)).map_err(Stop::Failed)?;
            visited.entry(path).or_insert_with(|| mtime(&stat));
        }
        self.way.push((name, fd));
        Ok(())
    }

    /// Puts a link's names before those that are ahead.
    fn follow(
        &mut self,
        target: &[u8],
        ahead: &mut Vec<Vec<u8>>,
        followed: &mut Followed,
    ) -> Result<(), Stop> {
        followed.links += 1;
        followed.names += target.split(|byte| *byte == b'/').count();
        if followed.links > LINKS_MAX || followed.names > LINK_NAMES_MAX {
            return Err(Stop::Failed(LayerError::entry(&self.path_of(target), "too many symbolic links")));
        }
        if target.starts_with(b"/") {
            self.way.clear();
        }
        ahead.extend(target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
        Ok(())
    }

    fn link(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
        match rustix::fs::readlinkat(self.here(), name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(self.failed("read the link", name, errno)),
        }
    }

    fn make(&mut self, name: Vec<u8>, made: Option<&mut Vec<Made>>) -> Result<(), Stop> {
        let Some(made) = made else {
            return Err(Stop::Missing);
        };
        if name.len() > NAME_MAX {
            return Err(Stop::Failed(LayerError::entry(&name, "a name longer than 255 bytes")));
        }
        made.push(Made { path: self.path_of(&name), over_whiteout: false });
        self.make_directory(name)
    }

    fn replace_whiteout(&mut self, name: Vec<u8>, made: Option<&mut Vec<Made>>) -> Result<(), Stop> {
        let stat = rustix::fs::statat(self.here(), &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("stat", &name, errno))?;
        if !is_whiteout(&stat) {
            return Err(Stop::NotDirectory);
        }
        let Some(made) = made else {
            return Err(Stop::Missing);
        };
        rustix::fs::unlinkat(self.here(), &name, AtFlags::empty())
            .map_err(|errno| self.failed("remove", &name, errno))?;
        made.push(Made { path: self.path_of(&name), over_whiteout: true });
        self.make_directory(name.clone())?;
        set_opaque(self.here()).map_err(|errno| self.failed("mark", &name, errno))
    }

    fn make_directory(&mut self, name: Vec<u8>) -> Result<(), Stop> {
        let made = make_directory(self.here(), &name);
        let fd = made.map_err(|errno| self.failed("make the directory", &name, errno))?;
        if let Some(visited) = &mut self.visited {
            let path = self.way.iter().map(|(name, _)| name.as_slice()).chain([name.as_slice()]);
            visited.insert(path.collect::<Vec<_>>().join(&b'/'), (0, 0));
        }
        self.visit(name, fd)
    }

    fn failed(&self, verb: &'static str, name: &[u8], errno: Errno) -> Stop {
        Stop::Failed(LayerError::apply(verb, &self.path_of(name))(errno))
    }
}

/// The links on one way.
#[derive(Default)]
struct Followed {
    links: usize,
    names: usize,
}

enum Stop {
    Missing,
    NotDirectory,
    Failed(LayerError),
}

/// Seconds and nanoseconds.
#[expect(clippy::cast_possible_truncation, reason = "nanoseconds are below a thousand million")]
pub fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, stat.st_mtime_nsec as u32)
}

/// Opens a directory, never through a link.
pub fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Makes a directory with mode 0755, whatever the umask.
pub fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(parent, name, mode)?;
    let fd = open_directory(parent, name)?;
    rustix::fs::fchmod(&fd, mode)?;
    Ok(fd)
}

/// Overlay's whiteout: a character device with number 0/0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Marks a directory as opaque.
pub fn set_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

/// Whether a directory is marked as opaque.
pub fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut value = [0_u8; 1];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value) {
        Ok(_) => Ok(value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}
