//! Processes executed in a container, and everything that each of them has started.
//!
//! What an exec has started is told by its cgroup namespace. Each exec gets one of its own, with the same root as the
//! container's, so that it shows in no file; what is forked inherits it, into a new session and past the death of every
//! ancestor, and without CAP_SYS_ADMIN nobody leaves it. A cgroup for each exec would do as well, but then /proc/self/cgroup
//! would name a directory without limits, and programs that look there for theirs (Java, Go, .NET) would find none.
//! A container without a cgroup namespace of its own (a privileged one) would notice the difference: there, those count
//! that descend from the exec, and those of its session.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::event_loop::Key;

/// Rounds of killing before the container is frozen for the rest: only who forks without end needs more than two.
const ROUNDS: usize = 20;
/// How long the freezing may take; the pod's other containers wait meanwhile.
const FREEZE: Duration = Duration::from_millis(200);

/// A process in a container, until its end.
pub struct Executed {
    pub container_id: String,
    pub exec_id: String,
    pub pid: Pid,
    /// Who asked for it: without that connection nobody holds its streams, and it goes.
    pub connection: Key,
    /// At its end everything that it has started ends too: its client has left.
    pub hung_up: bool,
    pub family: Family,
}

/// An exec and everything that it has started.
pub struct Family {
    leader: i32,
    /// False once it is reaped, and its number perhaps another's.
    led: bool,
    /// The container's cgroup, a directory in each hierarchy.
    cgroups: Vec<String>,
    /// The cgroup namespace of its own; held, so that its number is nobody else's.
    namespace: Option<File>,
}

impl Executed {
    /// Sends a signal to the process and to its group. It is not reaped, so its number is still its own.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        match rustix::process::kill_process_group(self.pid, signal) {
            // It has not become a leader yet, or is none.
            Err(rustix::io::Errno::SRCH) => rustix::process::kill_process(self.pid, signal),
            other => other,
        }
    }
}

impl Family {
    /// Of an exec that has just begun. `init` is the container's first process.
    pub fn of(leader: Pid, init: Pid, cgroups: &[String]) -> Self {
        let open = |pid: Pid| File::open(format!("/proc/{}/ns/cgroup", pid.as_raw_pid()));
        // Where it has ended already, nothing of it needs to be found.
        let namespace = open(leader).ok().filter(|own| {
            let same = |init: &File| same_file(own, init).unwrap_or(true);
            open(init).is_ok_and(|init| !same(&init))
        });
        Self { leader: leader.as_raw_pid(), led: true, cgroups: cgroups.to_vec(), namespace }
    }

    /// Its first process was reaped.
    pub fn lose_leader(&mut self) {
        self.led = false;
    }

    /// Kills every member; none escapes by forking. Returns when they have the signal, not when they are gone.
    pub fn kill(&self) {
        // A process with a SIGKILL forks no more, so a round without new members is the last one.
        let mut killed = BTreeSet::new();
        for _ in 0..ROUNDS {
            if !self.kill_members(&mut killed) {
                return;
            }
        }
        let frozen = self.cgroups.iter().find_map(|cgroup| Frozen::freeze(Path::new(cgroup)));
        self.kill_members(&mut killed);
        drop(frozen);
    }

    /// Whether there were new ones.
    fn kill_members(&self, killed: &mut BTreeSet<i32>) -> bool {
        let before = killed.len();
        for (pid, process) in self.members() {
            // Gone meanwhile is as well.
            let _ = rustix::process::pidfd_send_signal(process.as_fd(), Signal::KILL);
            killed.insert(pid);
        }
        killed.len() > before
    }

    fn members(&self) -> Vec<(i32, OwnedFd)> {
        // Every hierarchy lists all of them.
        let mut pids = self.cgroups.first().map(|cgroup| processes(Path::new(cgroup))).unwrap_or_default();
        if self.led && !pids.contains(&self.leader) {
            pids.push(self.leader);
        }
        // Opened before it is looked at: a number that is given anew in between is not signalled.
        let open = |pid: i32| {
            let process = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            Some((Candidate::look(pid)?, process))
        };
        let candidates: Vec<_> = pids.into_iter().filter_map(open).collect();
        let mut members: BTreeSet<i32> =
            candidates.iter().filter(|(one, _)| self.owns(one)).map(|(one, _)| one.pid).collect();
        // Descendants, each of the generations.
        loop {
            let child = |one: &Candidate| members.contains(&one.parent) && !members.contains(&one.pid);
            let more: Vec<i32> =
                candidates.iter().filter(|(one, _)| child(one)).map(|(one, _)| one.pid).collect();
            if more.is_empty() {
                break;
            }
            members.extend(more);
        }
        let member =
            |(one, process): (Candidate, OwnedFd)| members.contains(&one.pid).then_some((one.pid, process));
        candidates.into_iter().filter_map(member).collect()
    }

    fn owns(&self, candidate: &Candidate) -> bool {
        let inside = |namespace: &File| {
            let of = std::fs::metadata(format!("/proc/{}/ns/cgroup", candidate.pid));
            let own = namespace.metadata();
            matches!((of, own), (Ok(of), Ok(own)) if (of.dev(), of.ino()) == (own.dev(), own.ino()))
        };
        (self.led && candidate.pid == self.leader)
            || candidate.session == self.leader
            || self.namespace.as_ref().is_some_and(inside)
    }
}

/// What /proc/PID/stat tells of a process.
struct Candidate {
    pid: i32,
    parent: i32,
    session: i32,
}

impl Candidate {
    fn look(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold blanks and brackets; after it come state, parent, group, session (proc_pid_stat(5)).
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { pid, parent, session })
    }
}

fn same_file(a: &File, b: &File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Those of a cgroup and of the cgroups below it, which a container may have made.
fn processes(cgroup: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    let mut open = vec![cgroup.to_path_buf()];
    while let Some(directory) = open.pop() {
        if let Ok(list) = std::fs::read_to_string(directory.join("cgroup.procs")) {
            pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
        let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        open.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()),
        );
    }
    pids
}

/// A cgroup that stands still until this is dropped.
struct Frozen {
    file: PathBuf,
    thawed: &'static str,
}

impl Frozen {
    fn freeze(cgroup: &Path) -> Option<Self> {
        let until = Instant::now() + FREEZE;
        let (file, frozen, thawed) = match cgroup.join("cgroup.freeze") {
            file if file.exists() => (file, "1", "0"),
            _ => (cgroup.join("freezer.state"), "FROZEN", "THAWED"),
        };
        let frozen_now = || match thawed {
            "0" => std::fs::read_to_string(cgroup.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == "frozen 1")),
            _ => std::fs::read_to_string(&file).is_ok_and(|state| state.trim() == frozen),
        };
        // Not created: a hierarchy of version 1 without the freezer has no such file.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut f| f.write_all(frozen.as_bytes()))
            .ok()?;
        let guard = Self { file: file.clone(), thawed };
        while !frozen_now() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(guard)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.file, self.thawed) {
            eprintln!("thaw {}: {error}", self.file.display());
        }
    }
}
