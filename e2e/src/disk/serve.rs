//! A medium as the only file of a FUSE file system, which a loop device turns into a disk. The file is opened for direct
//! I/O: each write and flush of the kernel arrives here in its turn. What does not live here: what a medium does.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::medium::Medium;

/// The file's name.
pub const NAME: &str = "medium";
const FOREVER: Duration = Duration::from_secs(3600);

/// Shared with whoever plays with it.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Medium>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file system.
pub struct Served {
    pub medium: Shared,
    /// Of the disk, in bytes.
    pub size: u64,
    file: INodeNo,
}

impl Served {
    /// A file that no other disk had: mount(8) takes a loop device for that of the file whose numbers it has.
    pub fn new(medium: Shared, size: u64) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(2);
        let number = MADE.fetch_add(1, Ordering::Relaxed) | u64::from(std::process::id()) << 32;
        Self { medium, size, file: INodeNo(number) }
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            file if file == self.file => (FileType::RegularFile, 0o600, self.size),
            _ => return None,
        };
        let (atime, mtime, ctime, crtime) = (UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH);
        let (blocks, blksize, nlink, uid, gid, rdev, flags) = (size.div_ceil(512), 4096, 1, 0, 0, 0, 0);
        Some(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            blksize,
            flags,
        })
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(self.file).filter(|_| parent == INodeNo::ROOT && name == NAME) {
            Some(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = u64::from(size).min(self.size.saturating_sub(offset));
        let mut data = vec![0; usize::try_from(len).unwrap_or_default()];
        self.medium.lock().read(offset, &mut data);
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match u32::try_from(data.len()) {
            Ok(written) if self.medium.lock().write(offset, data) => reply.written(written),
            _ => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.medium.lock().flush();
        reply.ok();
    }
}
