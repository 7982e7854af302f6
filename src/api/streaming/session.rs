//! A session from its upgrade to its end: the client's wire format and the process or pod brought together. What does not
//! live here: either of them.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::handshake::{Commanding, Forwarding};
use super::outcome::Outcome;
use super::output::Output;
use super::remote_command::{Channels, Wanted};
use super::watch::Watch;
use super::{Streaming, port_forward, spdy, websocket};
use crate::containers::session::Session;
use crate::containers::{AttachRequest, ContainerError, ExecRequest};
use crate::error::chain;
use crate::ids::{ContainerId, PodId};

/// What was promised, and what the client speaks.
pub enum Plan {
    /// A further process.
    Exec(ContainerId, ExecRequest, Commanding),
    /// The container's own.
    Attach(ContainerId, AttachRequest, Commanding),
    /// Ports.
    PortForward(PodId, Forwarding),
}

/// Whose streams a client wants.
enum Process {
    Exec(ContainerId, ExecRequest),
    Attach(ContainerId, AttachRequest),
}

impl Plan {
    /// Runs the session. When the client goes, everything that was done for it is dropped.
    pub async fn run<T>(self, io: T, watch: Arc<Watch>, streaming: &Streaming)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match self {
            Self::Exec(id, request, speaking) => {
                command(io, watch, streaming, (Process::Exec(id, request), speaking)).await;
            }
            Self::Attach(id, request, speaking) => {
                command(io, watch, streaming, (Process::Attach(id, request), speaking)).await;
            }
            Self::PortForward(id, Forwarding::Spdy) => {
                let (drive, streams) = spdy::serve(io, watch);
                together(drive, forward(streams, id, streaming)).await;
            }
            Self::PortForward(id, Forwarding::Tunnel) => {
                let (pump, io) = websocket::tunnel(websocket::socket(io).await);
                let (drive, streams) = spdy::serve(io, watch);
                let connection = async {
                    tokio::join!(pump, drive);
                };
                together(connection, forward(streams, id, streaming)).await;
            }
        }
    }
}

/// The connection ends the session; the session's end ends the connection, once all is said.
async fn together(connection: impl Future<Output = ()>, session: impl Future<Output = ()>) {
    tokio::pin!(connection);
    tokio::select! {
        () = &mut connection => {}
        () = session => connection.await,
    }
}

async fn command<T>(
    io: T,
    watch: Arc<Watch>,
    streaming: &Streaming,
    (process, speaking): (Process, Commanding),
) where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let wanted = process.wanted();
    match speaking {
        Commanding::Spdy(version) => {
            let (drive, streams) = spdy::serve(io, watch);
            let session = async {
                if let Some(channels) = spdy::open(streams, wanted, version).await {
                    process.serve(channels, streaming).await;
                }
            };
            together(drive, session).await;
        }
        Commanding::WebSocket(protocol) => {
            let socket = websocket::socket(io).await;
            let (drive, channels) = websocket::serve(socket, protocol, wanted, watch);
            together(drive, process.serve(channels, streaming)).await;
        }
    }
}

impl Process {
    fn wanted(&self) -> Wanted {
        match self {
            Self::Exec(_, ExecRequest { tty, stdin, stdout, stderr, .. })
            | Self::Attach(_, AttachRequest { tty, stdin, stdout, stderr }) => {
                Wanted { tty: *tty, stdin: *stdin, stdout: *stdout, stderr: *stderr }
            }
        }
    }

    async fn serve<O: Output>(self, channels: Channels<O>, streaming: &Streaming) {
        match self.start(streaming).await {
            Ok(session) => channels.carry(session).await,
            Err(error) => channels.tell(Outcome::Failed(chain(&error))).await,
        }
    }

    async fn start(self, streaming: &Streaming) -> Result<Session, ContainerError> {
        match self {
            Self::Exec(id, request) => streaming.containers.exec(&id, request).await,
            Self::Attach(id, request) => streaming.containers.attach(&id, request).await,
        }
    }
}

async fn forward(streams: spdy::Streams, id: PodId, streaming: &Streaming) {
    let dial = |port| {
        let (pods, id) = (streaming.pods.clone(), id.clone());
        async move { pods.dial(&id, port).await.map_err(|error| chain(&error)) }
    };
    port_forward::serve(streams, dial).await;
}
