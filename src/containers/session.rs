//! A client's hold on a process: its streams, its terminal, its end. What does not live here: how it came to be (exec.rs,
//! attach.rs), and the protocol that the client speaks (api/).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Container;
use super::exec::Running;
use super::state::Phase;
use crate::drivers::shim::Shim;
use crate::drivers::stdio::Master;
pub use crate::drivers::stdio::{Reader, Writer};
use crate::ids::ContainerId;

/// A process's streams in a client's hands. Dropping all of it ends an exec, and leaves a container as it is.
pub struct Session {
    /// Where asked for. Shut down or dropped, it gives the process its end of file (of an attached container: if that is
    /// so made that the first client's end is its own). Writing fails with a broken pipe where nobody reads any more.
    pub stdin: Option<Writer>,
    /// Where asked for. With a terminal, all output.
    pub stdout: Option<Reader>,
    /// Where asked for; none with a terminal.
    pub stderr: Option<Reader>,
    /// Where the process has one.
    pub terminal: Option<Terminal>,
    /// The end.
    pub end: End,
}

/// A terminal whose size a client decides.
pub struct Terminal(pub(super) TerminalOf);

pub(super) enum TerminalOf {
    Exec(Master),
    /// The shim holds it.
    Container {
        shim: Shim,
        id: ContainerId,
    },
}

impl Terminal {
    /// Columns and rows.
    pub async fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        match &self.0 {
            TerminalOf::Exec(master) => master.resize(width, height),
            TerminalOf::Container { shim, id } => {
                shim.resize(id.as_str(), width, height).await.map_err(io::Error::other)
            }
        }
    }
}

/// The end of a session. Dropped before an exec has ended, it hangs the process up, and soon kills it with everything
/// that it has started.
pub struct End(pub(super) EndOf);

pub(super) enum EndOf {
    Exec(Running),
    Attach(Attached),
}

/// An attached client.
pub(super) struct Attached {
    pub container: Arc<Container>,
    /// Ends when no stream of the client is open any more.
    pub streams: mpsc::Receiver<Infallible>,
}

impl End {
    /// Of an exec: waits for its end, and gives its exit code, 128 + signal where a signal ended it, 137 where it was lost
    /// with its shim. Of an attached client: waits until the container has ended its output streams, or the client has
    /// dropped them; gives the exit code of a container that has exited, else 0. May be called again after its end.
    pub async fn wait(&mut self) -> i32 {
        match &mut self.0 {
            EndOf::Exec(running) => running.ended().await.unwrap_or(super::exec::LOST),
            EndOf::Attach(attached) => attached.ended().await,
        }
    }
}

impl Attached {
    async fn ended(&mut self) -> i32 {
        // Nothing is ever sent.
        let _ = self.streams.recv().await;
        match self.container.phase() {
            Phase::Exited(exited) => exited.exit.code,
            Phase::Created | Phase::Running(_) => 0,
        }
    }
}
