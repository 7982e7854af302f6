//! Exec: a further process in a running container, its streams given to a client. What does not live here: collecting its
//! output (exec_sync.rs).

use std::collections::HashMap;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_proto::shim::v1;
use rustix::fs::MemfdFlags;
use tokio::sync::watch;

use super::oci;
use super::session::{End, EndOf, Reader, Session, Terminal, TerminalOf};
use super::{Cause, Container, ContainerError, Containers};
use crate::drivers::shim::Shim;
use crate::drivers::stdio::{self, Ended};
use crate::ids::{ContainerId, PodId};

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
/// How long an exec that was hung up may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// The exit code of an exec that went with its shim.
pub(super) const LOST: i32 = 128 + SIGKILL;

/// A command, and what of it the client wants to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// To write to it; else it reads nothing.
    pub stdin: bool,
    /// To read its output; with a terminal all of it.
    pub stdout: bool,
    /// To read its errors; with a terminal there is nothing to be read.
    pub stderr: bool,
}

impl Containers {
    /// What Exec itself has to refuse: an unknown container, and one that does not run.
    pub fn check_exec(&self, id: &str) -> Result<ContainerId, ContainerError> {
        let container = self.find(id)?;
        container.running_shim().map_err(|cause| cause.of(&container.id))?;
        Ok(container.id.clone())
    }

    /// Runs a command; returns once it is executing.
    pub async fn exec(
        self: &Arc<Self>,
        id: &ContainerId,
        request: ExecRequest,
    ) -> Result<Session, ContainerError> {
        let container = self.find(id.as_str())?;
        self.exec_in(&container, &request).await.map_err(|cause| cause.of(&container.id))
    }

    pub(super) async fn exec_in(
        self: &Arc<Self>,
        container: &Container,
        request: &ExecRequest,
    ) -> Result<Session, Cause> {
        let shim = container.running_shim()?;
        let process = container.process(|| self.read_process(container))?;
        let process = oci::exec_process(&process, &request.command, request.tty)?;
        let process = file_of(&process).map_err(failed("write the exec's process"))?;
        let (exec_id, end) = self.execs.add(&container.sandbox.id);
        let running =
            Running { containers: self.clone(), shim, container: container.id.clone(), exec_id, end };
        if request.tty {
            return self.exec_terminal(container, running, request, &process).await;
        }
        let (stdin, their_stdin) = match request.stdin {
            true => stdio::input().map(|(ours, theirs)| (Some(ours), theirs)),
            false => stdio::null().map(|null| (None, null)),
        }
        .map_err(failed("make a pipe"))?;
        let (stdout, their_stdout) = running.output(request.stdout)?;
        let (stderr, their_stderr) = running.output(request.stderr)?;
        self.spawn_exec(container, &running, &process, &[their_stdin, their_stdout, their_stderr]).await?;
        Ok(Session { stdin, stdout, stderr, terminal: None, end: End(EndOf::Exec(running)) })
    }

    async fn exec_terminal(
        &self,
        container: &Container,
        running: Running,
        request: &ExecRequest,
        process: &OwnedFd,
    ) -> Result<Session, Cause> {
        let master = self.spawn_exec(container, &running, process, &[]).await?;
        let master = master.ok_or_else(|| Cause::Io {
            step: "receive the exec's terminal",
            source: io::ErrorKind::UnexpectedEof.into(),
        })?;
        let (stdin, stdout, size) = stdio::terminal(master).map_err(failed("watch the exec's terminal"))?;
        let mut stdout = stdout.until(running.over());
        let stdout = if request.stdout {
            Some(stdout)
        } else {
            // Else the process would stop once the terminal is full.
            tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
            None
        };
        let stdin = request.stdin.then_some(stdin);
        let terminal = Some(Terminal(TerminalOf::Exec(size)));
        Ok(Session { stdin, stdout, stderr: None, terminal, end: End(EndOf::Exec(running)) })
    }

    /// Returns the terminal's master where there is one, that is, where no streams are given.
    async fn spawn_exec(
        &self,
        container: &Container,
        running: &Running,
        process: &OwnedFd,
        streams: &[OwnedFd],
    ) -> Result<Option<OwnedFd>, Cause> {
        let filter = self.seccomp_filter(&container.spec.security)?;
        let exec = v1::Exec {
            container_id: container.id.to_string(),
            exec_id: running.exec_id.clone(),
            has_seccomp: filter.is_some(),
            cgroups: container.cgroup.join_dirs(),
            cgroup_v2: container.cgroup.v2(),
            seccomp_flags: filter.as_ref().map_or_else(Vec::new, |filter| filter.flags.clone()),
        };
        let fds: Vec<_> = std::iter::once(process.as_fd())
            .chain(filter.as_ref().map(|filter| filter.fd.as_fd()))
            .chain(streams.iter().map(AsFd::as_fd))
            .collect();
        let (_, master) = running.shim.exec(exec, &fds).await?;
        Ok(master)
    }

    fn read_process(&self, container: &Container) -> Result<oci_spec::runtime::Process, Cause> {
        let spec = self.drivers.bundles.read_config(&container.id)?;
        spec.process().clone().ok_or(Cause::NoCommand)
    }
}

/// An exec under way. Dropped before its end (the client has gone), it is hung up, and then killed with everything that
/// it has started.
pub(super) struct Running {
    containers: Arc<Containers>,
    shim: Shim,
    container: ContainerId,
    exec_id: String,
    end: watch::Receiver<Option<i32>>,
}

impl Running {
    /// Waits for its end; None where the shim has gone before.
    pub async fn ended(&mut self) -> Option<i32> {
        self.end.wait_for(Option::is_some).await.ok().and_then(|code| *code)
    }

    /// Kills it, and everything that it has started, and waits until it has ended, or until it takes too long.
    pub async fn kill(&mut self, patience: Duration) {
        let _ = self.shim.signal(self.container.as_str(), &self.exec_id, SIGKILL).await;
        let _ = tokio::time::timeout(patience, self.ended()).await;
    }

    fn over(&self) -> Ended {
        let mut end = self.end.clone();
        Box::pin(async move {
            let _ = end.wait_for(Option::is_some).await;
        })
    }

    fn output(&self, wanted: bool) -> Result<(Option<Reader>, OwnedFd), Cause> {
        let made = match wanted {
            true => stdio::output().map(|(ours, theirs)| (Some(ours.until(self.over())), theirs)),
            false => stdio::null().map(|null| (None, null)),
        };
        made.map_err(failed("make a pipe"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Closed without a value: the shim has gone.
        let over = self.end.borrow().is_some() || self.end.has_changed().is_err();
        self.containers.execs.forget(&self.exec_id);
        if over {
            return;
        }
        let (shim, container, exec) = (self.shim.clone(), self.container.to_string(), self.exec_id.clone());
        tokio::spawn(async move {
            // Each fails where it has ended meanwhile.
            let _ = shim.signal(&container, &exec, SIGHUP).await;
            tokio::time::sleep(GRACE).await;
            let _ = shim.signal(&container, &exec, SIGKILL).await;
        });
    }
}

/// Execs whose end somebody waits for, by their id.
#[derive(Default)]
pub(super) struct Execs(Mutex<HashMap<String, Waiting>>);

struct Waiting {
    pod: PodId,
    end: watch::Sender<Option<i32>>,
}

impl Execs {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new id, before the shim hears of it: the end may come before the answer.
    fn add(&self, pod: &PodId) -> (String, watch::Receiver<Option<i32>>) {
        let id = ContainerId::generate().to_string();
        let (end, receiver) = watch::channel(None);
        self.table().insert(id.clone(), Waiting { pod: pod.clone(), end });
        (id, receiver)
    }

    /// One has ended.
    pub fn end(&self, id: &str, code: i32) {
        if let Some(waiting) = self.table().remove(id) {
            waiting.end.send_replace(Some(code));
        }
    }

    /// Nobody will hear of the ends of a pod's execs.
    pub fn lose(&self, pod: &PodId) {
        self.table().retain(|_, waiting| waiting.pod != *pod);
    }

    fn forget(&self, id: &str) {
        self.table().remove(id);
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Cause {
    move |source| Cause::Io { step, source }
}

fn file_of(process: &oci_spec::runtime::Process) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("process", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(process)?)?;
    file.rewind()?;
    Ok(file.into())
}
