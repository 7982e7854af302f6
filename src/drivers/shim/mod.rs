//! The shims: starting one for a pod, finding those of a daemon before this one, and asking them for things.
//! What does not live here: what a pod or a container is.

mod connection;
mod error;
mod launch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_proto::shim::v1::{self, message::Body, request::Verb};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use connection::{Answer, Connection};
pub use error::ShimError;

use crate::ids::PodId;
use crate::layout::Layout;

pub use launch::program_path;

/// `[shim]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The shim's program; None = `berth-shim` beside the daemon's own.
    #[serde(deserialize_with = "crate::config::absolute_or_none")]
    pub path: Option<PathBuf>,
}

/// What shims tell without being asked.
#[derive(Debug)]
pub enum Event {
    /// A container or an exec has ended.
    Exited {
        /// Its pod.
        pod: PodId,
        /// What the shim saw.
        exited: v1::Exited,
    },
    /// The connection has ended: the shim is dead, or closed it.
    Gone {
        /// Its pod.
        pod: PodId,
    },
}

/// How long a shim may take for what it does at once.
const PROMPT: Duration = Duration::from_secs(10);
/// How long a shim of an earlier daemon may take to say that it lives. Who does not is ended with its pod, so a node that
/// stands still for a while must not be enough; but nobody is served before all have answered.
const FOUND: Duration = Duration::from_secs(20);
/// How long it may take to start as a process, to make namespaces or to spawn: an idle disk, many mounts, a loaded node.
/// One that dies meanwhile is noticed at once.
const SPAWN: Duration = Duration::from_secs(120);

/// Starts shims and finds running ones.
pub struct Shims {
    layout: Layout,
    program: OwnedFd,
    events: mpsc::UnboundedSender<Event>,
}

impl Shims {
    /// Loads the shim's program; events of every shim arrive at the receiver.
    pub fn open(
        config: &Config,
        layout: Layout,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ShimError> {
        let program = launch::load_program(config.path.clone())?;
        let (events, receiver) = mpsc::unbounded_channel();
        Ok((Self { layout, program, events }, receiver))
    }

    /// Starts a shim for a pod: its directory, its socket, its process.
    pub async fn spawn(&self, pod: &PodId) -> Result<Shim, ShimError> {
        let socket = launch::spawn(&self.layout, self.program.as_fd(), pod)?;
        self.greet(pod, socket, SPAWN).await.map(|(shim, _)| shim)
    }

    /// Connects to the shim of a pod that a daemon before this one has started, and asks for its whole state.
    pub async fn connect(&self, pod: &PodId) -> Result<(Shim, v1::State), ShimError> {
        let path = self.layout.shim_socket(pod);
        let socket = berth_sys::socket::connect(&path).map_err(ShimError::io("connect to", path))?;
        self.greet(pod, socket, FOUND).await
    }

    /// Every pod that has a shim directory, alive or not.
    pub fn known(&self) -> Result<Vec<PodId>, ShimError> {
        let dir = self.layout.shims();
        let entries = std::fs::read_dir(&dir).map_err(ShimError::io("list", dir))?;
        Ok(entries.flatten().filter_map(|e| PodId::parse(e.file_name().to_str()?).ok()).collect())
    }

    /// Removes what is left of a shim that is dead.
    pub fn remove_directory(&self, pod: &PodId) -> Result<(), ShimError> {
        let dir = self.layout.shim(pod);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(ShimError::io("remove", dir)),
        }
    }

    async fn greet(
        &self,
        pod: &PodId,
        socket: OwnedFd,
        limit: Duration,
    ) -> Result<(Shim, v1::State), ShimError> {
        let connection = Connection::start(pod.clone(), socket, self.events.clone())
            .map_err(ShimError::io("watch", self.layout.shim_socket(pod)))?;
        let hello = Verb::Hello(v1::Hello { version: berth_proto::shim::VERSION });
        match connection.call(hello, &[], limit).await? {
            (Body::State(state), _) => {
                Ok((Shim { pod: pod.clone(), pid: state.shim_pid, connection }, state))
            }
            _ => Err(ShimError::Protocol { pod: pod.clone(), verb: "hello" }),
        }
    }
}

/// A live connection to one pod's shim; cheap to clone.
#[derive(Clone)]
pub struct Shim {
    pod: PodId,
    pid: i32,
    connection: Arc<Connection>,
}

/// The namespaces of a pod that was set up.
pub struct Ready {
    /// Set where a network namespace was made.
    pub network: Option<OwnedFd>,
    /// Set where a user namespace was made.
    pub user: Option<OwnedFd>,
    /// Init of the pod's PID namespace; 0 without one.
    pub init_pid: i32,
}

impl Shim {
    /// The shim's process, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Makes the pod's namespaces.
    pub async fn setup(&self, setup: v1::Setup) -> Result<Ready, ShimError> {
        let (wants_network, wants_user) = (setup.new_network, !setup.uid_mappings.is_empty());
        let (body, fds) = self.connection.call(Verb::Setup(setup), &[], SPAWN).await?;
        let Body::Ready(ready) = body else {
            return Err(self.protocol("setup"));
        };
        let mut fds = fds.into_iter();
        let network = if wants_network { fds.next() } else { None };
        let user = if wants_user { fds.next() } else { None };
        if network.is_some() != wants_network || user.is_some() != wants_user {
            return Err(self.protocol("setup"));
        }
        Ok(Ready { network, user, init_pid: ready.init_pid })
    }

    /// Spawns a container; returns once its workload is executing.
    pub async fn start(
        &self,
        start: v1::Start,
        root: BorrowedFd<'_>,
        seccomp: Option<BorrowedFd<'_>>,
        volumes: &[BorrowedFd<'_>],
    ) -> Result<v1::Started, ShimError> {
        let fds: Vec<_> = std::iter::once(root).chain(seccomp).chain(volumes.iter().copied()).collect();
        self.started(self.connection.call(Verb::Start(start), &fds, SPAWN).await?, "start").map(|(s, _)| s)
    }

    /// Executes a process in a running container; the fds are in the order of the message's comment. Returns the
    /// terminal's master where there is one.
    pub async fn exec(
        &self,
        exec: v1::Exec,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(v1::Started, Option<OwnedFd>), ShimError> {
        self.started(self.connection.call(Verb::Exec(exec), fds, SPAWN).await?, "exec")
    }

    /// Sends a signal to a container (`exec_id` empty) or an exec.
    pub async fn signal(&self, container_id: &str, exec_id: &str, signal: i32) -> Result<(), ShimError> {
        let (container_id, exec_id) = (container_id.to_string(), exec_id.to_string());
        self.done(Verb::Signal(v1::Signal { container_id, exec_id, signal }), PROMPT).await
    }

    /// Connects a client to a running container's streams; the fds are in the order of the message's comment.
    pub async fn attach(&self, attach: v1::Attach, fds: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        match self.connection.call(Verb::Attach(attach), fds, PROMPT).await? {
            (Body::Done(_), _) => Ok(()),
            _ => Err(self.protocol("attach")),
        }
    }

    /// Gives a container's terminal another size, in columns and rows.
    pub async fn resize(&self, container_id: &str, width: u16, height: u16) -> Result<(), ShimError> {
        let (container_id, exec_id) = (container_id.to_string(), String::new());
        let resize = v1::Resize { container_id, exec_id, width: width.into(), height: height.into() };
        self.done(Verb::Resize(resize), PROMPT).await
    }

    /// Opens a container's log anew.
    pub async fn reopen_log(&self, container_id: &str) -> Result<(), ShimError> {
        self.done(Verb::ReopenLog(v1::ReopenLog { container_id: container_id.to_string() }), PROMPT).await
    }

    /// Lets the shim forget an exited container.
    pub async fn delete(&self, container_id: &str) -> Result<(), ShimError> {
        self.done(Verb::Delete(v1::Delete { container_id: container_id.to_string() }), PROMPT).await
    }

    /// Ends the shim and everything that still runs in its pod.
    pub async fn shut_down(&self) -> Result<(), ShimError> {
        match self.done(Verb::Shutdown(v1::Shutdown { force: true }), PROMPT).await {
            Err(ShimError::Gone { .. }) => Ok(()),
            result => result,
        }
    }

    async fn done(&self, verb: Verb, limit: Duration) -> Result<(), ShimError> {
        match self.connection.call(verb, &[], limit).await? {
            (Body::Done(_), _) => Ok(()),
            _ => Err(self.protocol("request")),
        }
    }

    fn started(
        &self,
        (body, mut fds): Answer,
        verb: &'static str,
    ) -> Result<(v1::Started, Option<OwnedFd>), ShimError> {
        match body {
            Body::Started(started) => Ok((started, fds.pop())),
            _ => Err(self.protocol(verb)),
        }
    }

    fn protocol(&self, verb: &'static str) -> ShimError {
        ShimError::Protocol { pod: self.pod.clone(), verb }
    }
}
