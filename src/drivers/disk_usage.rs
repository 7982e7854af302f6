//! What a directory occupies on disk, as du(1) counts it; and what its file system has. What does not live here: when to
//! look. Where a project quota counts for a directory, this walk is not needed (`quota`).
//!
//! The tree is a container's: it may change while it is walked, be deeper than descriptors reach, and be made to hurt.
//! So nothing is opened but directories, no link is followed, and memory and descriptors have bounds.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::block::device_name;

/// Of a directory with all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes allocated; a file with several names counts once.
    pub bytes: u64,
    /// Inodes, the directory's own included.
    pub inodes: u64,
}

/// Of a whole file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Its device, as [`device_name`] has it.
    pub device: String,
    /// Bytes it can hold.
    pub bytes: u64,
    /// Bytes that are left for those without privileges.
    pub bytes_avail: u64,
    /// Inodes it can hold; 0 where it makes them as it needs them.
    pub inodes: u64,
    /// Inodes that are left.
    pub inodes_free: u64,
}

/// Directories open at the same time; what lies deeper is walked by a way of its own.
const OPEN_MAX: usize = 64;
/// Files with several names that are remembered; beyond, each name counts.
const LINKED_MAX: usize = 1 << 20;
/// Bytes of the ways to what lies deeper; beyond, it is not counted.
const DEEPER_MAX: usize = 16 << 20;
/// Entries between two rests.
const STRIDE: u32 = 256;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(200);
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Walks a tree, resting half of the time. None if `go_on` says no meanwhile. An error is the root's own; what vanishes
/// or can't be read below it is not counted. Blocking, for as long as the tree is large.
pub fn measure(root: &Path, go_on: impl Fn() -> bool) -> io::Result<Option<DiskUsage>> {
    let root = rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty())?;
    let stat = rustix::fs::fstat(&root)?;
    let mut walk = Walk {
        device: stat.st_dev,
        usage: DiskUsage::default(),
        linked: HashSet::new(),
        deeper: Vec::new(),
        deeper_bytes: 0,
        seen: 0,
        rested: Instant::now(),
        go_on,
    };
    walk.count(&stat);
    walk.deeper.push(Vec::new());
    while let Some(way) = walk.deeper.pop() {
        walk.deeper_bytes -= size(&way);
        if let Ok(dir) = follow(&root, &way)
            && !walk.below(&dir, way)?
        {
            return Ok(None);
        }
    }
    Ok(Some(walk.usage))
}

/// What the file system of a path has. Blocking.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let (stat, device) = (rustix::fs::statvfs(path)?, rustix::fs::stat(path)?.st_dev);
    Ok(FileSystem {
        device: device_name(rustix::fs::major(device), rustix::fs::minor(device)),
        bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        bytes_avail: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

struct Walk<F> {
    device: u64,
    usage: DiskUsage,
    linked: HashSet<u64>,
    /// Ways from the root to directories that are still to be walked.
    deeper: Vec<Vec<CString>>,
    deeper_bytes: usize,
    seen: u32,
    rested: Instant,
    go_on: F,
}

impl<F: Fn() -> bool> Walk<F> {
    /// Counts all below a directory, `way` being the way to it. False if it is to stop.
    fn below(&mut self, top: &OwnedFd, mut way: Vec<CString>) -> io::Result<bool> {
        let mut open = vec![Dir::read_from(top)?];
        loop {
            let full = open.len() == OPEN_MAX;
            let Some(dir) = open.last_mut() else { return Ok(true) };
            let Some(Ok(entry)) = dir.read() else {
                open.pop();
                way.pop();
                continue;
            };
            let (name, parent) = (entry.file_name(), dir.fd()?);
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if !self.rest() {
                return Ok(false);
            }
            let Some(stat) = self.look(parent, name) else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            let path = || way.iter().map(CString::as_c_str).chain([name]);
            if full {
                self.defer(path().map(CStr::to_owned).collect());
            } else if let Ok(child) = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
                && let Ok(child) = Dir::new(child)
            {
                way.push(name.to_owned());
                open.push(child);
            }
        }
    }

    /// Counts one entry. None where it is gone, or not of this file system.
    fn look(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Option<Stat> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (stat.st_dev == self.device).then(|| self.count(&stat))?;
        Some(stat)
    }

    fn count(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !directory {
            if self.linked.contains(&stat.st_ino) {
                return;
            }
            if self.linked.len() < LINKED_MAX {
                self.linked.insert(stat.st_ino);
            }
        }
        // Blocks of 512 bytes, whatever the file system's own are (stat(2)).
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        self.usage.inodes += 1;
    }

    fn defer(&mut self, way: Vec<CString>) {
        if self.deeper_bytes + size(&way) <= DEEPER_MAX {
            self.deeper_bytes += size(&way);
            self.deeper.push(way);
        }
    }

    /// From time to time, as long a pause as the work before it took. False if it is to stop.
    fn rest(&mut self) -> bool {
        self.seen += 1;
        if self.seen < STRIDE {
            return true;
        }
        self.seen = 0;
        std::thread::sleep(self.rested.elapsed().min(REST_MAX));
        self.rested = Instant::now();
        (self.go_on)()
    }
}

fn size(way: &[CString]) -> usize {
    way.iter().map(|name| name.count_bytes() + size_of::<CString>()).sum()
}

/// Opens a directory name by name: a way may be longer than a path may be, and none of its names may be a link by now.
fn follow(root: &OwnedFd, way: &[CString]) -> rustix::io::Result<OwnedFd> {
    let mut dir = rustix::fs::openat(root.as_fd(), c".", DIRECTORY, Mode::empty())?;
    for name in way {
        dir = rustix::fs::openat(&dir, name.as_c_str(), DIRECTORY, Mode::empty())?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// What du(1) says: bytes and inodes.
    fn du(path: &Path) -> DiskUsage {
        let ask = |options: &[&str]| -> u64 {
            let output = Command::new("/usr/bin/du").args(options).arg(path).output().unwrap();
            String::from_utf8(output.stdout).unwrap().split('\t').next().unwrap().parse().unwrap()
        };
        DiskUsage { bytes: ask(&["-s", "-B1"]), inodes: ask(&["-s", "--inodes"]) }
    }

    fn measured(path: &Path) -> DiskUsage {
        measure(path, || true).unwrap().unwrap()
    }

    #[test]
    fn a_tree_is_counted_as_du_counts_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("upper");
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        assert_eq!(measured(&root), du(&root));
        fs::write(root.join("a/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(root.join("a/file"), root.join("a/b/same")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        symlink("/usr", root.join("a/link")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for number in 0..1000 {
            fs::write(root.join(format!("a/b/c/{number}")), b"x").unwrap();
        }
        assert_eq!(measured(&root), du(&root));
        assert_eq!(measured(&root).inodes, 4 + 1 + 1 + 1 + 1 + 1000);
        fs::remove_dir_all(root.join("a")).unwrap();
        assert_eq!(measured(&root), du(&root));
    }

    #[test]
    fn a_tree_deeper_than_paths_and_descriptors_reach_is_counted_whole() {
        let dir = tempfile::tempdir().unwrap();
        let name = CString::new("d".repeat(200)).unwrap();
        let mut at = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        for _ in 0..300 {
            rustix::fs::mkdirat(&at, name.as_c_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_c_str(), DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(measured(dir.path()).inodes, 301);
    }

    #[test]
    fn a_walk_ends_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..2 * STRIDE {
            fs::write(dir.path().join(number.to_string()), b"").unwrap();
        }
        assert_eq!(measure(dir.path(), || false).unwrap(), None);
        assert!(measure(&dir.path().join("none"), || true).is_err());
    }

    #[test]
    fn a_tree_that_goes_meanwhile_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("upper");
        for number in 0..2000 {
            fs::create_dir_all(root.join(format!("{}/{number}", number % 7))).unwrap();
        }
        let walked = root.clone();
        let walk = std::thread::spawn(move || measure(&walked, || true));
        fs::rename(&root, dir.path().join("trash")).unwrap();
        fs::remove_dir_all(dir.path().join("trash")).unwrap();
        let result = walk.join().unwrap();
        assert!(matches!(&result, Ok(Some(_))) || result.is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn a_file_system_has_a_size() {
        let found = file_system(Path::new("/proc/self/..")).unwrap();
        assert!(found.inodes_free <= found.inodes && found.bytes_avail <= found.bytes, "{found:?}");
        assert!(file_system(Path::new("/tmp")).unwrap().bytes > 1 << 20);
        assert!(file_system(Path::new("/no/such/path")).is_err());
    }
}
