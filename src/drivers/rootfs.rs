//! Reading files inside a container's root. Every path is resolved by the kernel within that root, and never through
//! the links of /proc. What does not live here: what the files mean, and writing (that is the shim's, in the child).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The most that is read of one file: passwd and group are the largest that matter.
pub const MOST: u64 = 10 << 20;

/// Why a file inside a root was not read.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// It exists and can't be opened.
    #[error("cannot open {path} inside the container's root")]
    Open {
        /// The path inside.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A pipe, a device, a directory...
    #[error("{path} inside the container's root is not a regular file")]
    NotRegular {
        /// The path inside.
        path: String,
    },
    /// Larger than [`MOST`].
    #[error("{path} inside the container's root has {size} bytes; at most {MOST} are read")]
    TooLarge {
        /// The path inside.
        path: String,
        /// What it has.
        size: u64,
    },
}

/// The root of a container: an O_PATH or readable directory, attached or not.
#[derive(Debug)]
pub struct Rootfs(OwnedFd);

impl Rootfs {
    /// Takes the directory.
    pub fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Gives the directory back.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens a regular file for reading; None where there is none. Reading past [`MOST`] is an error of the reader.
    pub fn open(&self, path: &str) -> Result<Option<impl BufRead + use<>>, RootfsError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open =
            |source: rustix::io::Errno| RootfsError::Open { path: path.to_string(), source: source.into() };
        // Looked at before it is opened: opening a device may already do something.
        let pinned = match rustix::fs::openat2(
            &self.0,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            pinned => pinned.map_err(open)?,
        };
        let seen = regular(path, &pinned)?.map_err(open)?;
        let file = rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve).map_err(open)?;
        let opened = regular(path, &file)?.map_err(open)?;
        if seen != opened {
            return Err(open(rustix::io::Errno::STALE));
        }
        Ok(Some(BufReader::new(Capped { file: File::from(file), left: MOST })))
    }
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

type Identity = (u64, u64);

fn regular(path: &str, file: &OwnedFd) -> Result<Result<Identity, rustix::io::Errno>, RootfsError> {
    let stat = match rustix::fs::fstat(file) {
        Ok(stat) => stat,
        Err(errno) => return Ok(Err(errno)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RootfsError::NotRegular { path: path.to_string() });
    }
    match u64::try_from(stat.st_size) {
        Ok(size) if size <= MOST => Ok(Ok((stat.st_dev, stat.st_ino))),
        size => Err(RootfsError::TooLarge { path: path.to_string(), size: size.unwrap_or(u64::MAX) }),
    }
}

struct Capped {
    file: File,
    left: u64,
}

impl Read for Capped {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.left = match self.left.checked_sub(read as u64) {
            Some(left) => left,
            None => {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::FileTooLarge,
                    "the file grew past 10 MiB",
                ));
            }
        };
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn rootfs(path: &Path) -> Rootfs {
        Rootfs::new(OwnedFd::from(File::open(path).unwrap()))
    }

    fn read(rootfs: &Rootfs, path: &str) -> Result<Option<String>, RootfsError> {
        Ok(rootfs.open(path)?.map(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        }))
    }

    #[test]
    fn links_never_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        std::fs::write(root.join("secret"), "image").unwrap();
        symlink("../../../secret", root.join("etc/up")).unwrap();
        symlink("/secret", root.join("etc/absolute")).unwrap();
        symlink("/etc/loop", root.join("etc/loop")).unwrap();
        let rootfs = rootfs(&root);
        assert_eq!(read(&rootfs, "/etc/up").unwrap().as_deref(), Some("image"));
        assert_eq!(read(&rootfs, "/etc/absolute").unwrap().as_deref(), Some("image"));
        assert_eq!(read(&rootfs, "/../../secret").unwrap().as_deref(), Some("image"));
        assert_eq!(read(&rootfs, "/etc/none").unwrap(), None);
        assert_eq!(read(&rootfs, "/secret/x").unwrap(), None);
        assert!(matches!(read(&rootfs, "/etc/loop"), Err(RootfsError::Open { .. })));
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        File::create(dir.path().join("sparse")).unwrap().set_len(10 << 30).unwrap();
        File::create(dir.path().join("most")).unwrap().set_len(MOST).unwrap();
        let rootfs = rootfs(dir.path());
        assert!(matches!(read(&rootfs, "fifo"), Err(RootfsError::NotRegular { .. })));
        assert!(matches!(read(&rootfs, "."), Err(RootfsError::NotRegular { .. })));
        assert!(matches!(read(&rootfs, "sparse"), Err(RootfsError::TooLarge { .. })));
        assert_eq!(read(&rootfs, "most").unwrap().map(|text| text.len() as u64), Some(MOST));
    }

    #[test]
    fn a_file_that_grows_ends_in_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let mut reader = rootfs(dir.path()).open("file").unwrap().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(MOST * 2).unwrap();
        assert!(std::io::copy(&mut reader, &mut std::io::sink()).is_err());
    }
}
