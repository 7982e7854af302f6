//! ExecSync: a further process in a running container, its output collected here, its end waited for.

use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use berth_proto::shim::v1;
use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::oci;
use super::state::Phase;
use super::{Cause, Container, ContainerError, Containers};
use crate::drivers::shim::Shim;
use crate::drivers::watched::watched;
use crate::ids::ContainerId;

/// Most bytes kept of each stream; the rest is read and dropped (api.proto, ExecSyncResponse).
const OUTPUT: usize = 16 << 20;
/// How long output may still come after the process has ended: a background child may hold the pipe for ever.
const DRAIN: Duration = Duration::from_millis(50);
const SIGKILL: i32 = 9;

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct ExecOutput {
    /// At most 16 MiB.
    pub stdout: Vec<u8>,
    /// At most 16 MiB.
    pub stderr: Vec<u8>,
    /// 128 + signal where a signal ended it.
    pub exit_code: i32,
}

impl Containers {
    /// Runs a command; `limit` None = as long as it takes.
    pub async fn exec_sync(
        self: &Arc<Self>,
        id: &str,
        command: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput, ContainerError> {
        let container = self.find(id)?;
        self.exec_in(&container, command, limit).await.map_err(|cause| cause.of(&container.id))
    }

    async fn exec_in(
        &self,
        container: &Container,
        command: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecOutput, Cause> {
        let Phase::Running(_) = container.phase() else {
            return Err(Cause::State { is: container.phase().describe(), wanted: "running" });
        };
        let program = command.first().cloned().ok_or(Cause::NoCommand)?;
        let shim =
            container.sandbox.shim().ok_or_else(|| Cause::SandboxNotReady(container.sandbox.id.clone()))?;
        let running = Running::new(self, container, shim)?;
        let (stdout, stderr) = self.spawn_exec(&running, container, &command).await?;
        let ended = running.ended(limit).await;
        // Read on for a moment: what the process wrote last is in the pipes.
        let (stdout, stderr) = tokio::join!(stdout.finish(DRAIN), stderr.finish(DRAIN));
        match ended {
            Some(exit_code) => Ok(ExecOutput { stdout, stderr, exit_code }),
            None => {
                Err(Cause::ExecTimeout { command: program, seconds: limit.unwrap_or_default().as_secs() })
            }
        }
    }

    async fn spawn_exec(
        &self,
        running: &Running<'_>,
        container: &Container,
        command: &[String],
    ) -> Result<(Collector, Collector), Cause> {
        let oci = self.drivers.bundles.read_config(&container.id)?;
        let process = oci.process().as_ref().ok_or(Cause::NoCommand)?;
        let process = oci::exec_process(process, command, false)?;
        let filter = self.seccomp_filter(&container.spec.security)?;
        let io = |step| move |source| Cause::Io { step, source };
        let process = file_of(&process).map_err(io("write the exec's process"))?;
        let stdin = dev_null().map_err(io("open /dev/null"))?;
        let (stdout, stdout_writer) = Collector::pipe().map_err(io("make a pipe"))?;
        let (stderr, stderr_writer) = Collector::pipe().map_err(io("make a pipe"))?;
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
            .chain([stdin.as_fd(), stdout_writer.as_fd(), stderr_writer.as_fd()])
            .collect();
        running.shim.exec(exec, &fds).await?;
        Ok((stdout, stderr))
    }
}

/// An exec under way. Dropped before its end (the caller has gone), it is killed.
struct Running<'a> {
    containers: &'a Containers,
    container: &'a Container,
    shim: Shim,
    exec_id: String,
    end: Option<oneshot::Receiver<v1::Exited>>,
}

impl<'a> Running<'a> {
    fn new(containers: &'a Containers, container: &'a Container, shim: Shim) -> Result<Self, Cause> {
        let exec_id = ContainerId::generate().to_string();
        let (sender, end) = oneshot::channel();
        containers.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(exec_id.clone(), sender);
        Ok(Self { containers, container, shim, exec_id, end: Some(end) })
    }

    /// Its exit code; None if it took too long and was killed.
    async fn ended(mut self, limit: Option<Duration>) -> Option<i32> {
        let mut end = self.end.take()?;
        let exited = match limit {
            None => (&mut end).await.ok(),
            Some(limit) => tokio::time::timeout(limit, &mut end).await.ok().and_then(Result::ok),
        };
        if exited.is_none() {
            let _ = self.shim.signal(self.container.id.as_str(), &self.exec_id, SIGKILL).await;
            let _ = tokio::time::timeout(Duration::from_secs(2), end).await;
        }
        exited.map(|exited| exited.exit_code)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.containers.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.exec_id);
        if self.end.is_some() {
            let (shim, container, exec) =
                (self.shim.clone(), self.container.id.to_string(), self.exec_id.clone());
            tokio::spawn(async move {
                let _ = shim.signal(&container, &exec, SIGKILL).await;
            });
        }
    }
}

/// Reads a pipe to its end in the background, keeping the first part.
struct Collector {
    reader: JoinHandle<()>,
    kept: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Collector {
    fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
        let reader = tokio::spawn(collect(watched(reader)?, kept.clone()));
        Ok((Self { reader, kept }, writer))
    }

    /// What was read, once the pipe has ended, or after `patience`.
    async fn finish(mut self, patience: Duration) -> Vec<u8> {
        if tokio::time::timeout(patience, &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn collect(pipe: AsyncFd<OwnedFd>, kept: Arc<std::sync::Mutex<Vec<u8>>>) {
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        let Ok(mut ready) = pipe.readable().await else {
            return;
        };
        match ready.try_io(|pipe| Ok(rustix::io::read(pipe, &mut buffer)?)) {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(length)) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT.saturating_sub(kept.len()).min(length);
                kept.extend_from_slice(&buffer[..room]);
            }
            Err(_would_block) => {}
        }
    }
}

fn file_of(process: &oci_spec::runtime::Process) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("process", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(process)?)?;
    file.rewind()?;
    Ok(file.into())
}

fn dev_null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}
