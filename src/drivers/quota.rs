//! Project quotas for writable layers: each container's snapshot directory is a project of its own, so that the file
//! system counts what the container writes, and refuses what is above a limit. Where the file system can't (only ext4 and
//! XFS can, mounted with prjquota), usage is found by walking (`disk_usage`), and there is no limit. What does not live
//! here: making the directories.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_sys::quota;

use super::disk_usage::DiskUsage;
use crate::layout::Layout;

/// Our projects are from here on: far above those that people write into /etc/projects, and those that the kubelet gives
/// to emptyDir volumes (from 1048577 on).
const FIRST: u32 = 0x4200_0000;
/// How many there are before the first comes again.
const COUNT: u32 = 1 << 24;

/// The projects below one root directory.
pub struct Quotas {
    state: Result<quota::State, String>,
    /// How many were begun.
    next: AtomicU32,
    /// Of each container, in bytes; none without.
    limit: Option<u64>,
}

impl Quotas {
    /// `limit` in MiB, 0 for none. What is there already keeps its project, also in the trash: files count for as long as
    /// they are there.
    pub fn open(layout: &Layout, limit_mib: u64) -> Self {
        let state = state(&layout.snapshots());
        let used = [layout.snapshots(), layout.trash()].into_iter().flat_map(|dir| projects(&dir));
        let next = used.filter(ours).max().map_or(0, |last| last - FIRST + 1);
        Self { state, next: AtomicU32::new(next), limit: (limit_mib > 0).then_some(limit_mib << 20) }
    }

    /// Whether the limit that is configured is in force, else why not, for people. None: no limit is configured.
    pub fn in_force(&self) -> Option<Result<(), String>> {
        self.limit.map(|_| enforced(&self.state))
    }

    /// Makes a new directory a project, with the limit.
    pub fn begin(&self, directory: &Path) -> io::Result<()> {
        let Ok(state) = &self.state else { return Ok(()) };
        if !state.counts {
            return Ok(());
        }
        let file = File::open(directory)?;
        let project = FIRST + self.next.fetch_add(1, Ordering::Relaxed) % COUNT;
        quota::set_project(&file, project)?;
        // A project that had this number before may have left its limit.
        quota::limit(&file, project, self.limit.map(|bytes| bytes >> 10))
    }

    /// What a directory's project has; none where nobody counts for it alone.
    pub fn usage(&self, directory: &Path) -> Option<DiskUsage> {
        self.state.as_ref().ok().filter(|state| state.counts)?;
        let file = File::open(directory).ok()?;
        let project = quota::project(&file).ok().filter(ours)?;
        let usage = quota::usage(&file, project).ok()?;
        Some(DiskUsage { bytes: usage.bytes, inodes: usage.inodes })
    }
}

fn ours(project: &u32) -> bool {
    (FIRST..FIRST + COUNT).contains(project)
}

/// Whether limits are in force; else why not, for people.
pub fn enforced(state: &Result<quota::State, String>) -> Result<(), String> {
    match state {
        Ok(state) if state.enforces => Ok(()),
        Ok(_) => {
            Err("the file system counts projects, but enforces no limit (XFS: mount option pqnoenforce)"
                .into())
        }
        Err(why) => Err(why.clone()),
    }
}

/// Whether the file system of a directory has project quotas; else why not, for people.
pub fn state(directory: &Path) -> Result<quota::State, String> {
    let why = |what: String| {
        format!(
            "{} is on a file system without project quotas ({what}): mount it with prjquota",
            directory.display()
        )
    };
    let state = File::open(directory).and_then(quota::state).map_err(|error| why(error.to_string()))?;
    if state.counts { Ok(state) } else { Err(why("they are off".into())) }
}

fn projects(directory: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| quota::project(File::open(entry.path()).ok()?).ok()).collect()
}
