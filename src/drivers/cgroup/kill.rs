//! Who is in a cgroup, and the end of all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cgroups_rs::FreezerState;
use cgroups_rs::fs::freezer::FreezerController;
use rustix::process::{Pid, Signal, kill_process};

use super::error::CgroupError;
use super::hierarchy::Hierarchies;
use super::setting;

/// How long a version 1 freezer may take before those listed are killed unfrozen.
const FREEZE: Duration = Duration::from_millis(200);

/// Every process of a cgroup and of those below it. A cgroup that does not exist has none.
pub(super) fn processes(hierarchies: &Hierarchies, path: &str) -> Vec<i32> {
    let Some(dir) = hierarchies.process_dir(path) else {
        return Vec::new();
    };
    let mut pids: Vec<i32> = tree(&dir)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// A cgroup's directory and those below it, parents first; empty where it does not exist.
pub(super) fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let children = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(children.map(|entry| entry.path()));
        all.push(dir);
    }
    all
}

/// Sends SIGKILL to every process of a cgroup; none can escape by forking. Returns when they have it, not when they are gone.
pub(super) fn kill(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    let Some(dir) = hierarchies.process_dir(path) else {
        return Ok(());
    };
    if !dir.exists() {
        return Ok(());
    }
    if matches!(hierarchies, Hierarchies::V2(_)) {
        let file = dir.join("cgroup.kill");
        match setting::write(&file, "1") {
            Ok(()) => return thaw_v2(&dir),
            // Linux before 5.14 has no such file; the cgroup may also have gone meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(CgroupError::Write {
                    resource: "killing of the cgroup",
                    path: file,
                    value: "1".into(),
                    source,
                });
            }
        }
    }
    frozen(hierarchies, path, &dir)
}

/// A frozen version 2 cgroup dies of cgroup.kill, but its parent's view of it stays frozen for who is started later.
fn thaw_v2(dir: &Path) -> Result<(), CgroupError> {
    let _ = setting::write(&dir.join("cgroup.freeze"), "0");
    Ok(())
}

/// Freezes, kills who is listed, thaws. Of a cgroup that is fully frozen none is missed in the first round; another round
/// is needed only where the freezer did not come to its end (a process in an uninterruptible wait).
fn frozen(hierarchies: &Hierarchies, path: &str, dir: &Path) -> Result<(), CgroupError> {
    let v2 = matches!(hierarchies, Hierarchies::V2(_));
    // cgroups-rs knows the files of both freezers.
    let freezer_dir = if v2 { Some(dir.to_path_buf()) } else { hierarchies.dir("freezer", path) };
    let freezer = freezer_dir.map(|dir| FreezerController::new(dir, "/".into(), v2));
    for _ in 0..20 {
        let complete = freezer.as_ref().is_some_and(wait_frozen);
        let signalled = kill_each(&processes(hierarchies, path));
        if let Some(freezer) = &freezer {
            let _ = freezer.thaw();
        }
        if complete || signalled == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn wait_frozen(freezer: &FreezerController) -> bool {
    let end = Instant::now() + FREEZE;
    while freezer.freeze().is_ok() && Instant::now() < end {
        if matches!(freezer.state(), Ok(FreezerState::Frozen)) {
            return true;
        }
        sleep(Duration::from_millis(1));
    }
    false
}

/// Returns how many took the signal. The daemon and init are never meant, whatever a broken list says.
fn kill_each(pids: &[i32]) -> usize {
    let own = rustix::process::getpid();
    let target = |pid: &i32| Pid::from_raw(*pid).filter(|pid| !pid.is_init() && *pid != own);
    pids.iter().filter_map(target).filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count()
}

/// Waits until no process is left. Past the time, tells who is left and where each waits in the kernel.
pub(super) fn wait_empty(hierarchies: &Hierarchies, path: &str, time: Duration) -> Result<(), CgroupError> {
    let end = Instant::now() + time;
    let mut pause = Duration::from_millis(1);
    loop {
        let left = processes(hierarchies, path);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let channel = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let processes = left.iter().map(|pid| (*pid, channel(pid))).collect();
            return Err(CgroupError::Unkillable { path: path.into(), processes });
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
