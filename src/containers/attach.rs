//! Attach: a client of a container's own streams, which the shim copies to it and from it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use berth_proto::shim::v1;
use tokio::sync::mpsc;

use super::session::{Attached, End, EndOf, Reader, Session, Terminal, TerminalOf, Writer};
use super::state::Phase;
use super::{Cause, Container, ContainerError, Containers};
use crate::drivers::shim::{Shim, ShimError};
use crate::drivers::stdio;
use crate::ids::ContainerId;

/// What a client wants of a container's streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Whether the container has a terminal: the client must know.
    pub tty: bool,
    /// To write to it.
    pub stdin: bool,
    /// To read its output; with a terminal all of it.
    pub stdout: bool,
    /// To read its errors; with a terminal there is nothing to be read.
    pub stderr: bool,
}

impl Containers {
    /// What Attach itself has to refuse: an unknown container, one that does not run, a wrong idea of its terminal.
    pub fn check_attach(&self, id: &str, request: &AttachRequest) -> Result<ContainerId, ContainerError> {
        let container = self.find(id)?;
        attachable(&container, request).map_err(|cause| cause.of(&container.id))?;
        Ok(container.id.clone())
    }

    /// Connects a client to all output from now on. The container waits for one that is slow; one that stops reading is
    /// dropped after ten seconds.
    pub async fn attach(
        self: &Arc<Self>,
        id: &ContainerId,
        request: AttachRequest,
    ) -> Result<Session, ContainerError> {
        let container = self.find(id.as_str())?;
        attach_to(&container, &request).await.map_err(|cause| cause.of(&container.id))
    }
}

/// Gives its shim.
fn attachable(container: &Container, request: &AttachRequest) -> Result<Shim, Cause> {
    let shim = container.running_shim()?;
    if request.tty == container.spec.tty { Ok(shim) } else { Err(Cause::Terminal(container.spec.tty)) }
}

async fn attach_to(container: &Arc<Container>, request: &AttachRequest) -> Result<Session, Cause> {
    let shim = attachable(container, request)?;
    let (streams, theirs) =
        Streams::make(request).map_err(|source| Cause::Io { step: "make a pipe", source })?;
    let (open, closed) = mpsc::channel(1);
    // Output is what keeps a session going; one that only writes lasts as long as it does.
    let (stdin, stdout, stderr) = match (streams.stdout, streams.stderr) {
        (None, None) => (streams.stdin.map(|stdin| stdin.holding(open)), None, None),
        (stdout, stderr) => (
            streams.stdin,
            stdout.map(|stdout| stdout.holding(open.clone())),
            stderr.map(|stderr| stderr.holding(open)),
        ),
    };
    connect(container, &shim, theirs).await?;
    let id = container.id.clone();
    let terminal = container.spec.tty.then_some(Terminal(TerminalOf::Container { shim, id }));
    let end = End(EndOf::Attach(Attached { container: container.clone(), streams: closed }));
    Ok(Session { stdin, stdout, stderr, terminal, end })
}

/// The client's ends.
struct Streams {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
}

/// The container's ends.
struct Theirs {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    fn make(request: &AttachRequest) -> std::io::Result<(Self, Theirs)> {
        let output = |wanted: bool| -> std::io::Result<_> {
            Ok(if wanted { Some(stdio::output()?) } else { None }.unzip())
        };
        let (stdin, their_stdin) = if request.stdin { Some(stdio::input()?) } else { None }.unzip();
        let (stdout, their_stdout) = output(request.stdout)?;
        let (stderr, their_stderr) = output(request.stderr && !request.tty)?;
        let theirs = Theirs { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
        Ok((Self { stdin, stdout, stderr }, theirs))
    }
}

/// A container without a stdin, or whose stdin is closed by now, still has output to give: then what the client writes
/// finds a broken pipe.
async fn connect(container: &Container, shim: &Shim, mut theirs: Theirs) -> Result<(), Cause> {
    const ENOENT: i32 = 2;
    if !container.spec.stdin {
        theirs.stdin = None;
    }
    loop {
        let attach = v1::Attach {
            container_id: container.id.to_string(),
            stdin: theirs.stdin.is_some(),
            stdout: theirs.stdout.is_some(),
            stderr: theirs.stderr.is_some(),
        };
        let all = [&theirs.stdin, &theirs.stdout, &theirs.stderr];
        let fds: Vec<_> = all.into_iter().flatten().map(AsFd::as_fd).collect();
        match shim.attach(attach, &fds).await {
            Err(ShimError::Refused { errno: ENOENT, .. }) if theirs.stdin.is_some() => theirs.stdin = None,
            result => return Ok(result?),
        }
    }
}

impl Container {
    /// The shim of a container that runs.
    pub(super) fn running_shim(&self) -> Result<Shim, Cause> {
        let Phase::Running(_) = self.phase() else {
            return Err(Cause::State { is: self.phase().describe(), wanted: "running" });
        };
        self.sandbox.shim().ok_or_else(|| Cause::SandboxNotReady(self.sandbox.id.clone()))
    }
}
