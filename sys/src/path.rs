//! The one resolver of paths inside a directory that others may have filled: a container's root, a volume.
//! Nothing in it can leave the directory: links are followed inside, links of procfs never. Policy lives with the callers.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many links as the kernel itself would follow.
const MAX_LINKS: usize = 40;
/// openat2 gives EAGAIN when a rename elsewhere races with `..`; then it is only to be tried again.
const MAX_RACES: usize = 128;

/// A directory that serves as `/` for every path given to its methods; leading slashes do not matter.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Takes `directory`, an open directory (O_PATH suffices), as the root.
    #[must_use]
    pub fn open(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Opens `path` inside the root with the given flags, following links inside the root.
    ///
    /// # Errors
    /// The errno of openat2(2); ELOOP for a link of procfs.
    pub fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::empty())
    }

    /// Opens `path` as a location only (O_PATH).
    ///
    /// # Errors
    /// The errno of openat2(2).
    pub fn open_path(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH)
    }

    /// Opens `path` with the given flags and follows no link at all, in no component.
    ///
    /// # Errors
    /// The errno of openat2(2); ELOOP where a component is a symbolic link.
    pub fn open_without_links(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens a regular file for reading; never blocks on a FIFO or a device.
    ///
    /// # Errors
    /// The errno of openat2(2); InvalidInput for anything but a regular file.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        let fd = self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if !is_kind(fd.as_fd(), rustix::fs::FileType::RegularFile)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(fd))
    }

    /// Opens the directory `path` (O_PATH), making it and its parents with `mode` where they are missing. A dangling
    /// link is followed: what it names is made, inside the root.
    ///
    /// # Errors
    /// The errno of the call that failed; ENOTDIR where a component is not a directory.
    pub fn mkdir_all(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.make_directories(&path, mode)? {
                Made::Opened(fd) => return Ok(fd),
                Made::Link(aim) => path = aim,
            }
        }
        Err(Errno::LOOP.into())
    }

    /// Opens `path` (O_PATH), whatever it is; where nothing is there, makes an empty file, and its parents with 0755.
    ///
    /// # Errors
    /// The errno of the call that failed.
    pub fn create_file(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.open_path(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
            let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
            let above = path.parent().unwrap_or(Path::new("")).to_owned();
            let parent = self.mkdir_all(&above, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            match rustix::fs::openat(&parent, &name, flags, mode) {
                Ok(_) => return reopen(parent.as_fd(), &name, OFlags::empty()),
                Err(Errno::EXIST) => path = aim_of_link(parent.as_fd(), &above, &name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::LOOP.into())
    }

    fn resolve(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..MAX_RACES {
            match rustix::fs::openat2(&self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// One pass: opens the longest part of the path that exists, then makes the rest one by one.
    fn make_directories(&self, path: &Path, mode: Mode) -> io::Result<Made> {
        let names: Vec<Component<'_>> =
            path.components().filter(|name| *name != Component::RootDir).collect();
        let (mut directory, mut known) = self.longest_existing(&names)?;
        while known < names.len() {
            let Component::Normal(name) = names[known] else {
                return Err(Errno::NOENT.into());
            };
            match rustix::fs::mkdirat(&directory, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            match reopen(directory.as_fd(), name, OFlags::DIRECTORY) {
                Ok(fd) => directory = fd,
                Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
                    let above: PathBuf = names[..known].iter().collect();
                    let aim = aim_of_link(directory.as_fd(), &above, name)?;
                    return Ok(Made::Link(names[known + 1..].iter().fold(aim, |path, name| path.join(name))));
                }
                Err(error) => return Err(error),
            }
            known += 1;
        }
        Ok(Made::Opened(directory))
    }

    fn longest_existing(&self, names: &[Component<'_>]) -> io::Result<(OwnedFd, usize)> {
        for known in (0..=names.len()).rev() {
            let path: PathBuf = names[..known].iter().collect();
            match self.open_with(&path, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(fd) => return Ok((fd, known)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NOENT.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

enum Made {
    Opened(OwnedFd),
    /// A dangling link stood in the way: the path to make instead.
    Link(PathBuf),
}

fn reopen(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

/// Where the link `name` in the directory that `above` leads to points, as a path from the root.
fn aim_of_link(directory: BorrowedFd<'_>, above: &Path, name: &OsStr) -> io::Result<PathBuf> {
    match rustix::fs::readlinkat(directory, name, Vec::new()) {
        // An absolute aim replaces `above`: both start at the root.
        Ok(aim) => Ok(above.join(OsStr::from_bytes(aim.as_bytes()))),
        Err(Errno::INVAL) => Err(Errno::NOTDIR.into()),
        Err(error) => Err(error.into()),
    }
}

fn is_kind(fd: BorrowedFd<'_>, kind: rustix::fs::FileType) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root_in(directory: &Path) -> Root {
        std::fs::create_dir(directory.join("root")).unwrap();
        Root::open(File::open(directory.join("root")).unwrap().into())
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "host").unwrap();
        let root = root_in(outside.path());
        let inside = outside.path().join("root");
        symlink("/secret", inside.join("absolute")).unwrap();
        symlink("../../../secret", inside.join("relative")).unwrap();
        for name in ["absolute", "relative"] {
            assert_eq!(
                root.open_file(Path::new(name)).unwrap_err().kind(),
                io::ErrorKind::NotFound,
                "{name}"
            );
        }
        std::fs::write(inside.join("secret"), "image").unwrap();
        for name in ["absolute", "relative", "/absolute", "../secret"] {
            assert_eq!(
                io::read_to_string(root.open_file(Path::new(name)).unwrap()).unwrap(),
                "image",
                "{name}"
            );
        }
    }

    #[test]
    fn directories_are_made_through_dangling_links_inside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = root_in(outside.path());
        let inside = outside.path().join("root");
        symlink("/../../run/deep", inside.join("link")).unwrap();
        root.mkdir_all(Path::new("/link/a/b"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(inside.join("run/deep/a/b").is_dir());
        symlink("../run/x/resolv.conf", inside.join("run/resolv")).unwrap();
        root.create_file(Path::new("run/resolv"), Mode::from_raw_mode(0o644)).unwrap();
        assert!(inside.join("run/x/resolv.conf").is_file());
        assert!(!outside.path().join("run").exists());
    }

    #[test]
    fn a_loop_of_links_and_a_file_in_the_way_are_errors() {
        let outside = tempfile::tempdir().unwrap();
        let root = root_in(outside.path());
        let inside = outside.path().join("root");
        symlink("loop", inside.join("loop")).unwrap();
        std::fs::write(inside.join("file"), "").unwrap();
        let mode = Mode::from_raw_mode(0o755);
        assert!(root.mkdir_all(Path::new("loop/a"), mode).is_err());
        assert!(root.create_file(Path::new("loop"), mode).is_err());
        let error = root.mkdir_all(Path::new("file/a"), mode).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    }

    #[test]
    fn only_regular_files_are_read() {
        let outside = tempfile::tempdir().unwrap();
        let root = root_in(outside.path());
        nix::unistd::mkfifo(&outside.path().join("root/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(root.open_file(Path::new("fifo")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
