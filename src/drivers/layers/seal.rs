//! What a whole layer looks like, as one number: it is taken when the layer is put in its place, and again when somebody
//! wants to know whether the disk still has what was written. What does not live here: what is done about a difference.
//!
//! A layer's diff_id is the digest of an archive, and the archive is gone. Keeping its headers would bring it back, at the
//! price of a second copy of all metadata, and would say nothing of the files' metadata on the disk. So the seal is taken
//! of the tree: each path with its kind, mode, owner, time, link target, device, attributes and content. XXH3 and not
//! SHA-256: who looks for a bit that a disk has turned needs no more, and who can change layers on purpose is root and can
//! change records too; it adds 2 % to the work of a pull instead of 30 %. Contents are hashed as they are written; the
//! walk at the end asks for metadata alone, which is in memory then, and counts what the layer takes.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use twox_hash::{XxHash3_64, XxHash3_128};

use super::apply::is_images;
use super::error::LayerError;
use super::tar::XATTR_MAX;
use super::tree::{self, OPAQUE};

/// Hashes of files' contents, by inode.
pub type Contents = HashMap<u64, u64>;
/// Of the content of a file.
pub type ContentHash = XxHash3_64;

/// What direct I/O wants buffers to be a multiple of, and to begin at.
const ALIGNMENT: usize = 4096;
/// Bytes read at once, of files that are read at all.
const CHUNK: usize = 512 << 10;

/// The number of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Seal(u128);

impl From<Seal> for String {
    fn from(Seal(number): Seal) -> Self {
        format!("xxh3:{number:032x}")
    }
}

impl TryFrom<String> for Seal {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.strip_prefix("xxh3:").ok_or("a seal begins with xxh3:")?;
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| "a seal is a hexadecimal number")
    }
}

/// A layer, looked at from the first to the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What it looks like.
    pub seal: Seal,
    /// Bytes on disk, as du(1) counts them.
    pub bytes: u64,
    /// Inodes on disk.
    pub inodes: u64,
}

/// Of a layer just written; what is not among `contents` is read.
pub(super) fn of_new(root: BorrowedFd<'_>, contents: &Contents) -> Result<Sealed, LayerError> {
    Walk::new(contents, Reader::new(OFlags::empty()), &mut |_| ()).all(root)
}

/// Of a layer as the disk has it: past the page cache, where a file system can do that. Tells `progress` of the bytes
/// that it has read.
pub(super) fn of_disk(root: BorrowedFd<'_>, progress: &mut dyn FnMut(u64)) -> Result<Sealed, LayerError> {
    Walk::new(&Contents::new(), Reader::new(OFlags::DIRECT), progress).all(root)
}

struct Walk<'a> {
    contents: &'a Contents,
    reader: Reader,
    progress: &'a mut dyn FnMut(u64),
    sum: u128,
    bytes: u64,
    inodes: u64,
    /// Inodes with several names that were counted.
    linked: HashSet<u64>,
    path: Vec<u8>,
    /// What is hashed of one path.
    record: Vec<u8>,
    /// For attributes.
    memory: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(contents: &'a Contents, reader: Reader, progress: &'a mut dyn FnMut(u64)) -> Self {
        let (linked, path, record, memory) = (HashSet::new(), Vec::new(), Vec::new(), vec![0; XATTR_MAX]);
        Self { contents, reader, progress, sum: 0, bytes: 0, inodes: 0, linked, path, record, memory }
    }

    fn all(mut self, root: BorrowedFd<'_>) -> Result<Sealed, LayerError> {
        self.one(root, b".")?;
        Ok(Sealed { seal: Seal(self.sum), bytes: self.bytes, inodes: self.inodes })
    }

    /// Depth is bounded by what `Tree` makes.
    fn below(&mut self, directory: BorrowedFd<'_>) -> Result<(), LayerError> {
        let above = self.path.len();
        for entry in Dir::read_from(directory).map_err(|errno| failed("read", &self.path, errno))? {
            let entry = entry.map_err(|errno| failed("read", &self.path, errno))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.one(directory, name)?;
            self.path.truncate(above);
        }
        Ok(())
    }

    fn one(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), LayerError> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed("look at", &self.path, errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let content = match kind {
            FileType::RegularFile => match self.contents.get(&stat.st_ino) {
                Some(content) => *content,
                None => {
                    let read = self.reader.read(parent, name, &stat, self.progress);
                    read.map_err(|errno| failed("read", &self.path, errno))?
                }
            },
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new());
                let target = target.map_err(|errno| failed("read", &self.path, errno))?;
                ContentHash::oneshot(target.to_bytes())
            }
            FileType::Directory => 0,
            _ => stat.st_rdev,
        };
        self.add(&stat, content);
        self.add_xattrs(parent, name).map_err(|errno| failed("read the attributes of", &self.path, errno))?;
        self.sum = self.sum.wrapping_add(XxHash3_128::oneshot(&self.record));
        if kind == FileType::Directory {
            let directory = tree::open_directory(parent, name);
            let directory = directory.map_err(|errno| failed("open", &self.path, errno))?;
            self.below(directory.as_fd())?;
        }
        Ok(())
    }

    /// Begins the record of a path, and counts it. A sum of records is the same in whatever order directories list names.
    fn add(&mut self, stat: &Stat, content: u64) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // What a directory occupies is the file system's affair.
        let size = if directory { 0 } else { stat.st_size.cast_unsigned() };
        let (seconds, nanoseconds) = tree::mtime(stat);
        self.record.clear();
        field(&mut self.record, &self.path);
        for number in [stat.st_mode, stat.st_uid, stat.st_gid, nanoseconds] {
            self.record.extend(number.to_le_bytes());
        }
        for number in [seconds.cast_unsigned(), size, content] {
            self.record.extend(number.to_le_bytes());
        }
        if directory || stat.st_nlink <= 1 || self.linked.insert(stat.st_ino) {
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
            self.inodes += 1;
        }
    }

    /// Adds what the image or the unpacking has set, in the order of names.
    fn add_xattrs(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
        let len = match rustix::fs::llistxattr(path.as_slice(), &mut self.memory[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            len => len?,
        };
        let names = self.memory[..len].split(|byte| *byte == 0);
        let ours = names.filter(|name| is_images(name) || *name == OPAQUE.as_bytes());
        let mut names: Vec<_> = ours.map(<[u8]>::to_vec).collect();
        names.sort();
        for name in names {
            let len = rustix::fs::lgetxattr(path.as_slice(), name.as_slice(), &mut self.memory[..])?;
            field(&mut self.record, &name);
            field(&mut self.record, &self.memory[..len]);
        }
        Ok(())
    }
}

fn field(record: &mut Vec<u8>, bytes: &[u8]) {
    record.extend((bytes.len() as u64).to_le_bytes());
    record.extend_from_slice(bytes);
}

fn failed(verb: &'static str, path: &[u8], errno: Errno) -> LayerError {
    LayerError::apply(verb, path)(errno)
}

/// Reads files whole.
struct Reader {
    flags: OFlags,
    /// Made when it is first needed; a part of it is aligned.
    buffer: Vec<u8>,
}

impl Reader {
    fn new(flags: OFlags) -> Self {
        Self { flags, buffer: Vec::new() }
    }

    /// The hash of a regular file's content.
    fn read(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |more| rustix::fs::openat(parent, name, flags | more, Mode::empty());
        let file = match open(self.flags) {
            Err(Errno::INVAL) => open(OFlags::empty())?,
            opened => opened?,
        };
        self.buffer.resize(CHUNK + ALIGNMENT, 0);
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut self.buffer[start..start + CHUNK];
        let (mut hash, mut left) = (ContentHash::new(), u64::try_from(stat.st_size).unwrap_or_default());
        // Direct I/O reads from aligned places only, so what follows the end is not asked for.
        while left > 0 {
            let len = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *buffer))?;
            if len == 0 {
                break;
            }
            hash.write(&buffer[..len]);
            left = left.saturating_sub(len as u64);
            progress(len as u64);
        }
        Ok(hash.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn of(path: &Path) -> Sealed {
        let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut read = 0;
        let sealed = of_disk(root.as_fd(), &mut |bytes| read += bytes).unwrap();
        assert_eq!(of_new(root.as_fd(), &Contents::new()).unwrap(), sealed);
        assert!(read > 0);
        sealed
    }

    #[test]
    fn whatever_changes_in_a_tree_changes_its_seal() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let (file, time) = (root.join("a/file"), std::fs::FileTimes::new());
        let time = time.set_modified(std::time::SystemTime::UNIX_EPOCH);
        let settle = || std::fs::File::open(&file).unwrap().set_times(time).unwrap();
        std::fs::create_dir(root.join("a")).unwrap();
        std::fs::write(&file, vec![7; 1_300_001]).unwrap();
        symlink("target", root.join("link")).unwrap();
        settle();
        let first = of(root);
        assert_eq!(of(root), first);
        let mut seen = vec![first.seal];
        let mut changed = |what: &str| {
            let now = of(root).seal;
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        let mut content = vec![7; 1_300_001];
        content[1_300_000] ^= 1;
        std::fs::write(&file, &content).unwrap();
        settle();
        changed("a bit of the content");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).unwrap();
        changed("the mode");
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        changed("the owner");
        rustix::fs::setxattr(&file, "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        changed("an attribute");
        rustix::fs::setxattr(root.join("a"), OPAQUE, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        changed("what a directory hides");
        std::fs::rename(&file, root.join("a/other")).unwrap();
        changed("a name");
        std::fs::remove_file(root.join("link")).unwrap();
        symlink("another", root.join("link")).unwrap();
        changed("a link");
        std::fs::write(root.join("empty"), "").unwrap();
        changed("an empty file");
    }

    #[test]
    fn what_is_known_of_contents_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        std::fs::hard_link(&file, dir.path().join("same")).unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let known = |content: &[u8]| {
            let ino = std::fs::metadata(&file).unwrap().ino();
            of_new(root.as_fd(), &Contents::from([(ino, ContentHash::oneshot(content))])).unwrap()
        };
        assert_eq!(known(b"text"), of(dir.path()));
        assert_ne!(known(b"lies").seal, of(dir.path()).seal);
        assert_eq!(known(b"text").inodes, 2);
    }

    #[test]
    fn a_seal_is_kept_as_text() {
        let seal = Seal(0xabc << 100);
        let text = serde_json::to_string(&seal).unwrap();
        assert_eq!(serde_json::from_str::<Seal>(&text).unwrap(), seal);
        for bad in ["\"\"", "\"xxh3:\"", "\"xxh3:g\"", "\"0\""] {
            assert!(serde_json::from_str::<Seal>(bad).is_err(), "{bad}");
        }
    }
}
