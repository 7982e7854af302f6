//! The verbs Start and Exec: from a request to a running process.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_proto::shim::{v1, v1::message::Body};
use rustix::process::{Pid, PidfdFlags};

use crate::container::{self, PidNamespace, Pod, Progress, Spawning, Stdio};
use crate::event_loop::{Key, Source};
use crate::executed::{Executed, Family};
use crate::failure::Failure;
use crate::log::Log;
use crate::process::{Container, Life};
use crate::server::{Reply, Shim, now};
use crate::stdio::{self, Ends};
use rustix::event::epoll::EventFlags;

/// A spawn under way.
pub struct Spawn {
    pub spawning: Spawning,
    pub reply: Reply,
    pub what: What,
    pub pid: Option<Pid>,
    terminal: Option<OwnedFd>,
}

/// What it will be.
pub enum What {
    Container {
        start: Box<v1::Start>,
        ends: Ends,
        log: Log,
    },
    /// Doomed: its client has left already.
    Exec {
        exec: Box<v1::Exec>,
        doomed: bool,
    },
}

impl Shim {
    /// Begins a Start; answered when the workload executes.
    pub fn start(&mut self, start: v1::Start, mut fds: Vec<OwnedFd>, reply: Reply) -> Result<(), Failure> {
        let id = &start.container_id;
        let Some(pod) = self.pod.as_ref() else {
            return Err(Failure::protocol("the pod is not set up"));
        };
        if id.is_empty() || self.knows(id) {
            let message = format!("container {id:?} exists already in this pod's shim, or has no id");
            return Err(Failure::refused("start", rustix::io::Errno::EXIST, message));
        }
        let volumes = fds.split_off((1 + usize::from(start.has_seccomp)).min(fds.len()));
        if volumes.len() != start.image_volumes as usize {
            let (came, wanted) = (volumes.len(), start.image_volumes);
            return Err(Failure::protocol(format!("{came} image volumes came where {wanted} belong")));
        }
        let [root, seccomp] = take_fds(fds, [true, start.has_seccomp])?;
        let root = root.ok_or_else(|| Failure::protocol("Start without a root"))?;
        let log = Log::open(PathBuf::from(&start.log_path))
            .map_err(|error| Failure::io("open log", &start.log_path, error))?;
        let (stdio, ends) = if start.terminal {
            (Stdio::Terminal, Ends::default())
        } else {
            stdio::pipes(start.stdin)
                .map_err(|error| Failure::io("make pipes", format!("of container {id}"), error))?
        };
        let pid = self.pid_namespace(&start, pod)?;
        let spawning = container::start(container::Start {
            bundle: Path::new(&start.bundle),
            root,
            volumes,
            seccomp,
            seccomp_flags: &start.seccomp_flags,
            cgroups: &start.cgroups,
            cgroup_v2: start.cgroup_v2,
            stdio,
            pid,
            pod,
        })?;
        self.watch(spawning, reply, What::Container { start: Box::new(start), ends, log })
    }

    fn pid_namespace<'a>(&'a self, start: &v1::Start, pod: &'a Pod) -> Result<PidNamespace<'a>, Failure> {
        match v1::PidMode::try_from(start.pid) {
            Ok(v1::PidMode::Container) => Ok(PidNamespace::New),
            Ok(v1::PidMode::Node) => Ok(PidNamespace::Host),
            Ok(v1::PidMode::Pod) => match &pod.init {
                Some(init) => Ok(PidNamespace::Join(init.as_fd())),
                None => Err(Failure::protocol("the pod has no PID namespace of its own")),
            },
            Ok(v1::PidMode::Target) => {
                match self.containers.get(&start.pid_target).map(|target| &target.life) {
                    Some(Life::Running { pidfd: Some(pidfd) }) => Ok(PidNamespace::Join(pidfd.as_fd())),
                    _ => {
                        let message = format!("target container {:?} is not running", start.pid_target);
                        Err(Failure::refused("join PID namespace", rustix::io::Errno::SRCH, message))
                    }
                }
            }
            Err(_) => Err(Failure::protocol(format!("unknown PID mode {}", start.pid))),
        }
    }

    /// Begins an Exec; answered when the process executes.
    pub fn exec(&mut self, exec: v1::Exec, mut fds: Vec<OwnedFd>, reply: Reply) -> Result<(), Failure> {
        let target = match self.containers.get(&exec.container_id).map(|container| &container.life) {
            Some(Life::Running { pidfd: Some(pidfd) }) => pidfd,
            _ => {
                let message = format!("container {:?} is not running", exec.container_id);
                return Err(Failure::refused("exec", rustix::io::Errno::SRCH, message));
            }
        };
        let streams = fds.split_off((1 + usize::from(exec.has_seccomp)).min(fds.len()));
        let [process, seccomp] = take_fds(fds, [true, exec.has_seccomp])?;
        let process = process.ok_or_else(|| Failure::protocol("Exec without a process"))?;
        let stdio = match <[OwnedFd; 3]>::try_from(streams) {
            Ok([stdin, stdout, stderr]) => Stdio::Pipes { stdin, stdout, stderr },
            Err(none) if none.is_empty() => Stdio::Terminal,
            Err(_) => return Err(Failure::protocol("Exec needs no streams (terminal) or three")),
        };
        let spawning = container::exec(container::Exec {
            process,
            target: target.as_fd(),
            seccomp,
            seccomp_flags: &exec.seccomp_flags,
            cgroups: &exec.cgroups,
            stdio,
        })?;
        self.watch(spawning, reply, What::Exec { exec: Box::new(exec), doomed: false })
    }

    fn watch(&mut self, spawning: Spawning, reply: Reply, what: What) -> Result<(), Failure> {
        let key = self.events.add(spawning.as_fd(), Source::Spawn, EventFlags::IN);
        let key = key.map_err(|error| Failure::io("watch", "a spawn", error))?;
        self.spawns.insert(key, Spawn { spawning, reply, what, pid: None, terminal: None });
        self.advance(key);
        Ok(())
    }

    /// Takes all progress of a spawn.
    pub fn advance(&mut self, key: Key) {
        while let Some(spawn) = self.spawns.get_mut(&key) {
            let outcome = match spawn.spawning.next() {
                Progress::Pending => return,
                Progress::Spawned { pid, terminal } => {
                    spawn.pid = Pid::from_raw(pid.as_raw());
                    spawn.terminal = terminal;
                    continue;
                }
                Progress::Executing => Ok(()),
                Progress::Failed(error) => Err(Failure::from(error)),
            };
            let Some(spawn) = self.spawns.remove(&key) else {
                return;
            };
            self.events.remove(key, spawn.spawning.as_fd());
            let reply = spawn.reply;
            match outcome.and_then(|()| self.adopt(spawn)) {
                Ok((body, fds)) => self.answer(reply, body, fds),
                Err(failure) => self.answer(reply, Body::Error(failure.into()), Vec::new()),
            }
            self.settle();
        }
    }

    /// The workload executes: the spawn becomes a container or an exec.
    fn adopt(&mut self, spawn: Spawn) -> Result<(Body, Vec<OwnedFd>), Failure> {
        let pid = spawn.pid.ok_or_else(|| Failure::protocol("a spawn without a process"))?;
        let started = v1::Started { pid: pid.as_raw_pid(), started_at: now() };
        match spawn.what {
            What::Exec { exec, doomed } => {
                self.adopt_exec(*exec, pid, (spawn.reply.connection, doomed));
                return Ok((Body::Started(started), spawn.terminal.into_iter().collect()));
            }
            What::Container { start, ends, log } => {
                let id = start.container_id;
                let fail = |error: std::io::Error| {
                    Failure::io("connect streams", format!("of container {id}"), error)
                };
                let (terminal, ends) = match spawn.terminal {
                    Some(master) => {
                        stdio::terminal(master, start.stdin).map(|(t, ends)| (Some(t), ends)).map_err(fail)?
                    }
                    None => (None, ends),
                };
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
                let mut container = Container {
                    pid,
                    started_at: started.started_at,
                    life: Life::Running { pidfd },
                    exit_path: PathBuf::from(start.exit_path),
                    log,
                    outputs: Vec::new(),
                    stdin: None,
                    terminal,
                    clients: Vec::new(),
                };
                let connected =
                    container.connect(&id, ends, start.stdin_once, &mut self.events).map_err(fail);
                self.containers.insert(id, container);
                connected?;
            }
        }
        Ok((Body::Started(started), Vec::new()))
    }
}

impl Shim {
    fn adopt_exec(&mut self, exec: v1::Exec, pid: Pid, (connection, doomed): (Key, bool)) {
        let init = self.containers.get(&exec.container_id).map_or(pid, |container| container.pid);
        let family = Family::of(pid, init, &exec.cgroups);
        let hung_up = doomed || !self.connections.contains_key(&connection);
        if hung_up {
            family.kill();
        }
        let (container_id, exec_id) = (exec.container_id, exec.exec_id);
        self.executed.push(Executed { container_id, exec_id, pid, connection, hung_up, family });
    }
}

/// Exactly the descriptors that are expected, in order.
fn take_fds(fds: Vec<OwnedFd>, expected: [bool; 2]) -> Result<[Option<OwnedFd>; 2], Failure> {
    let wanted = expected.iter().filter(|yes| **yes).count();
    if fds.len() != wanted {
        return Err(Failure::protocol(format!("{} file descriptors came where {wanted} belong", fds.len())));
    }
    let mut fds = fds.into_iter();
    Ok(expected.map(|yes| if yes { fds.next() } else { None }))
}
