//! Takes cgroups away, innermost first.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::error::CgroupError;
use super::hierarchy::Hierarchies;
use super::kill;

/// How long a cgroup may stay busy: the kernel lets go of the last process a moment after its parent has reaped it.
const BUSY: Duration = Duration::from_secs(2);

/// Removes a cgroup and those below it from every hierarchy. One that does not exist is fine. Goes on past a hierarchy
/// that fails, and returns the first failure.
pub(super) fn remove(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    // An empty path would be the root of everything.
    if path.trim_matches('/').is_empty() {
        return Ok(());
    }
    let end = Instant::now() + BUSY;
    let mut first = Ok(());
    for dir in hierarchies.dirs(path) {
        let result = remove_tree(&dir, end);
        if let Err((left, source)) = result
            && first.is_ok()
        {
            first = Err(CgroupError::Leftover {
                path: left,
                processes: kill::processes(hierarchies, path),
                source,
            });
        }
    }
    first
}

fn remove_tree(dir: &Path, end: Instant) -> Result<(), (PathBuf, io::Error)> {
    let mut pause = Duration::from_millis(1);
    loop {
        // Read anew each time: a process may still make children.
        let failed = kill::tree(dir).into_iter().rev().find_map(|dir| match std::fs::remove_dir(&dir) {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some((dir, error)),
        });
        let Some((left, error)) = failed else {
            return Ok(());
        };
        let busy = matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty);
        if !busy || Instant::now() >= end {
            return Err((left, error));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Removes directories that nobody else uses by now, innermost first; in use or gone is fine.
pub(super) fn unused(dirs: &[String]) {
    for dir in dirs.iter().rev() {
        let _ = std::fs::remove_dir(dir);
    }
}

/// Waits as long as a busy cgroup may be; an error tells who is left.
pub(super) fn await_empty(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    kill::wait_empty(hierarchies, path, BUSY).map_err(|_| CgroupError::Leftover {
        path: path.into(),
        processes: kill::processes(hierarchies, path),
        source: io::ErrorKind::ResourceBusy.into(),
    })
}
