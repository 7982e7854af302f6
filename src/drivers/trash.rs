//! What is on its way out: moved out of sight by one rename, and its files removed behind everybody's back. What a crash
//! leaves in the trash is removed by the next daemon. What does not live here: what goes into it.
//!
//! Who removes something may wait for the space, as a kubelet whose disk is full does; so for a while after each arrival
//! files go as fast as the disk lets them, and then only half of the time. A container decides what its tree looks like:
//! memory and descriptors do not grow with its depth.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::background::{self, Background, LOWEST, NORMAL};
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::telemetry::Leak;

/// For how long after an arrival nothing rests.
pub const HURRY: Duration = Duration::from_secs(5);
/// Files between two rests.
const STRIDE: u32 = 256;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(200);
/// Directories open at the same time; what lies deeper becomes a tree of its own.
const DEPTH_MAX: usize = 64;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What somebody has mounted in there is not ours to remove.
const WITHIN: ResolveFlags = ResolveFlags::NO_XDEV.union(ResolveFlags::BENEATH);

/// The trash of one root directory. Cheap to clone.
#[derive(Clone)]
pub struct Trash {
    layout: Layout,
    background: Background,
    hurry: Arc<Mutex<Instant>>,
}

impl std::fmt::Debug for Trash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Trash").field(&self.layout.trash()).finish()
    }
}

impl Trash {
    /// Below the layout's root.
    pub fn new(layout: &Layout) -> Self {
        let hurry = Arc::new(Mutex::new(Instant::now()));
        Self { layout: layout.clone(), background: Background::default(), hurry }
    }

    /// Moves something out of sight at once; `empty` frees its space.
    pub fn take(&self, path: &Path) -> io::Result<()> {
        std::fs::rename(path, self.layout.trashed(ContainerId::generate().as_str()))
    }

    /// Frees what is in the trash, in the background. What is returned ends when all of it is gone.
    pub fn empty(&self) -> oneshot::Receiver<()> {
        *self.hurry.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + HURRY;
        let (done, waiting) = oneshot::channel();
        let (path, hurry) = (self.layout.trash(), Arc::clone(&self.hurry));
        self.background.push(move || {
            if let Err(error) = empty(&path, Pace::new(hurry)) {
                tracing::warn!(path = %path.display(), %error, "cannot read the trash");
            }
            let _ = done.send(());
        });
        waiting
    }
}

fn empty(path: &Path, pace: Pace) -> io::Result<()> {
    let trash = OwnedFd::from(File::open(path)?);
    let mut removal = Removal { trash: trash.as_fd(), pace };
    let mut failed: HashSet<CString> = HashSet::new();
    loop {
        let all = names(trash.as_fd())?;
        let Some(name) = all.into_iter().find(|name| !failed.contains(name)) else { return Ok(()) };
        if let Err(errno) = removal.remove(trash.as_fd(), &name, 0) {
            Leak::Trash.found();
            let entry = path.join(name.to_string_lossy().as_ref());
            tracing::warn!(path = %entry.display(), error = %io::Error::from(errno), "what was removed still takes space");
            failed.insert(name);
        }
    }
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let entries = Dir::read_from(directory)?.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    entries.filter(|name| !name.as_ref().is_ok_and(|name| is_dots(name))).collect()
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

struct Removal<'a> {
    trash: BorrowedFd<'a>,
    pace: Pace,
}

impl Removal<'_> {
    /// Removes a name with all below it, or moves it up into the trash where that is too deep.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        self.pace.rest();
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            done => return absent(done),
        }
        if depth == DEPTH_MAX {
            let fresh = ContainerId::generate();
            return absent(rustix::fs::renameat(parent, name, self.trash, fresh.as_str()));
        }
        // Some file systems skip entries of a directory that shrinks while it is read.
        loop {
            let directory = match rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), WITHIN) {
                Err(Errno::NOENT) => return Ok(()),
                opened => opened?,
            };
            let gone = self.remove_children(directory.as_fd(), depth + 1)?;
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) if gone > 0 => {}
                done => return absent(done),
            }
        }
    }

    /// How many are gone. What can't be removed is an error once all else is gone.
    fn remove_children(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<usize, Errno> {
        let (mut gone, mut failure) = (0, None);
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if is_dots(entry.file_name()) {
                continue;
            }
            match self.remove(directory, entry.file_name(), depth) {
                Ok(()) => gone += 1,
                Err(errno) => failure = Some(errno),
            }
        }
        failure.map_or(Ok(gone), Err)
    }
}

/// Another emptying at the same time is fine.
fn absent(done: Result<(), Errno>) -> Result<(), Errno> {
    if done == Err(Errno::NOENT) { Ok(()) } else { done }
}

struct Pace {
    hurry: Arc<Mutex<Instant>>,
    removed: u32,
    rested: Instant,
}

impl Pace {
    /// Of the calling thread, whose priority follows it: who waits for space on a busy node waits for this thread.
    fn new(hurry: Arc<Mutex<Instant>>) -> Self {
        let pace = Self { hurry, removed: 0, rested: Instant::now() };
        background::set_nice(if pace.hurries() { NORMAL } else { LOWEST });
        pace
    }

    fn hurries(&self) -> bool {
        Instant::now() <= *self.hurry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&mut self) {
        self.removed += 1;
        if !self.removed.is_multiple_of(STRIDE) {
            return;
        }
        if self.hurries() {
            background::set_nice(NORMAL);
        } else {
            background::set_nice(LOWEST);
            std::thread::sleep(self.rested.elapsed().min(REST_MAX));
        }
        self.rested = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trash() -> (tempfile::TempDir, Trash) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("root"), dir.path().join("state"));
        std::fs::create_dir_all(layout.trash()).unwrap();
        (dir, Trash::new(&layout))
    }

    fn is_empty(trash: &Trash) -> bool {
        std::fs::read_dir(trash.layout.trash()).unwrap().count() == 0
    }

    #[tokio::test]
    async fn everything_goes_however_deep_it_is() {
        let (dir, trash) = trash();
        let deep = dir.path().join("deep");
        std::fs::create_dir(&deep).unwrap();
        let mut at = OwnedFd::from(File::open(&deep).unwrap());
        for level in 0..5000 {
            let name = CString::new(format!("{}{level}", "d".repeat(200))).unwrap();
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, DIRECTORY, Mode::empty()).unwrap();
        }
        let wide = dir.path().join("wide");
        std::fs::create_dir(&wide).unwrap();
        (0..1000).for_each(|n| std::fs::write(wide.join(n.to_string()), "x").unwrap());
        std::os::unix::fs::symlink(dir.path(), wide.join("link")).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [&deep, &wide, &file] {
            trash.take(path).unwrap();
            assert!(!path.exists());
        }
        trash.empty().await.unwrap();
        assert!(is_empty(&trash) && dir.path().exists());
    }

    #[tokio::test]
    async fn what_cannot_be_removed_does_not_hold_up_the_rest() {
        let (dir, trash) = trash();
        let stuck = dir.path().join("stuck");
        for name in ["a", "b", "c"] {
            std::fs::create_dir_all(stuck.join(name)).unwrap();
        }
        let mount =
            rustix::mount::mount("none", stuck.join("b"), "tmpfs", rustix::mount::MountFlags::empty(), c"");
        mount.unwrap();
        std::fs::write(stuck.join("b/mounted"), "x").unwrap();
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        trash.take(&stuck).unwrap();
        trash.take(&other).unwrap();
        trash.empty().await.unwrap();
        let left: Vec<_> = std::fs::read_dir(trash.layout.trash()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        let within: Vec<_> = std::fs::read_dir(left[0].path()).unwrap().flatten().collect();
        assert_eq!(within.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["b"]);
        assert!(left[0].path().join("b/mounted").exists(), "what is mounted there is not removed");
        rustix::mount::unmount(left[0].path().join("b"), rustix::mount::UnmountFlags::empty()).unwrap();
        trash.empty().await.unwrap();
        assert!(is_empty(&trash));
    }

    #[test]
    fn it_rests_half_of_the_time_when_the_hurry_is_over() {
        let hurry = Arc::new(Mutex::new(Instant::now() - Duration::from_secs(1)));
        let timed = |hurry| {
            let mut pace = Pace::new(hurry);
            let start = Instant::now();
            for _ in 0..4 * STRIDE {
                std::thread::sleep(Duration::from_micros(20));
                pace.rest();
            }
            (start.elapsed(), rustix::process::getpriority_process(None).unwrap())
        };
        let (slow, lowest) = timed(hurry);
        let (fast, normal) = timed(Arc::new(Mutex::new(Instant::now() + HURRY)));
        assert!(slow > fast * 3 / 2, "{slow:?} {fast:?}");
        assert_eq!((lowest, normal), (LOWEST, NORMAL));
    }
}
