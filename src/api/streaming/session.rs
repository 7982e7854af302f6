//! A session from its upgrade to its end: the client's wire format and the process or pod brought together. What does not
//! live here: either of them.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::{Instrument, Span};

use super::handshake::{Commanding, Forwarding};
use super::outcome::Outcome;
use super::output::Output;
use super::port_forward::Port;
use super::remote_command::{Channels, Wanted};
use super::watch::Watch;
use super::{Streaming, port_forward, spdy, websocket};
use crate::activity::{self, Verb};
use crate::containers::session::Session;
use crate::containers::{AttachRequest, ContainerError, ExecRequest};
use crate::error::chain;
use crate::ids::{ContainerId, PodId};
use crate::pods::Pods;
use crate::telemetry::metrics::Ongoing;
use crate::telemetry::{METRICS, subject};

/// What was promised, and what the client speaks.
pub enum Plan {
    /// A further process.
    Exec(ContainerId, ExecRequest, Commanding),
    /// The container's own.
    Attach(ContainerId, AttachRequest, Commanding),
    /// Ports.
    PortForward(PodId, Vec<u16>, Forwarding),
}

/// Whose streams a client wants.
enum Process {
    Exec(ContainerId, ExecRequest),
    Attach(ContainerId, AttachRequest),
}

/// What kind of session it is, and whom it concerns.
struct Subject {
    kind: &'static str,
    verb: Verb,
    name: String,
    id: String,
    span: Span,
}

impl Plan {
    /// Runs the session. When the client goes, everything that was done for it is dropped.
    pub async fn run<T>(self, io: T, watch: Arc<Watch>, streaming: &Streaming)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Subject { kind, verb, name, id, span } = self.subject(streaming);
        let _ongoing = Ongoing::new(&METRICS.streams.get_or_create_owned(&[("kind", kind)]));
        let session = self.serve(io, watch, streaming);
        activity::track(verb, name, &id, session).instrument(span).await;
    }

    fn subject(&self, streaming: &Streaming) -> Subject {
        let told = |kind, verb, id: &dyn std::fmt::Display, found: Option<(String, Span)>| {
            let (name, span) = found.unwrap_or_else(|| (String::new(), Span::none()));
            Subject { kind, verb, name, id: id.to_string(), span }
        };
        let container = |id: &ContainerId| {
            streaming.containers.find(id.as_str()).ok().map(|found| (found.name(), found.span()))
        };
        match self {
            Self::Exec(id, ..) => told("exec", Verb::Exec, id, container(id)),
            Self::Attach(id, ..) => told("attach", Verb::Attach, id, container(id)),
            Self::PortForward(id, ..) => {
                let pod = streaming.pods.find(id.as_str()).ok();
                let found = pod.map(|pod| (pod.name(), subject::pod(&pod.sandbox.spec.metadata, id)));
                told("port_forward", Verb::PortForward, id, found)
            }
        }
    }

    async fn serve<T>(self, io: T, watch: Arc<Watch>, streaming: &Streaming)
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
            Self::PortForward(id, _, Forwarding::Spdy) => {
                let (drive, streams) = spdy::serve(io, watch);
                together(drive, forward(streams, id, streaming)).await;
            }
            Self::PortForward(id, _, Forwarding::Tunnel) => {
                let (pump, io) = websocket::tunnel(websocket::socket(io).await);
                let (drive, streams) = spdy::serve(io, watch);
                let connection = async {
                    tokio::join!(pump, drive);
                };
                together(connection, forward(streams, id, streaming)).await;
            }
            Self::PortForward(id, ports, Forwarding::WebSocket(protocol)) => {
                let socket = websocket::socket(io).await;
                let (drive, ports) = websocket::ports(socket, protocol, &ports, watch);
                let forwards = ports.into_iter().map(|port| forward_named(port, &id, streaming));
                let session = async { drop(join_all(forwards).await) };
                together(drive, session).await;
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
    match speaking {
        Commanding::Spdy(version) => {
            let (drive, streams) = spdy::serve(io, watch);
            let session = async {
                if let Some((channels, started)) = process.open(streams, version, streaming).await {
                    process.serve(channels, started).await;
                }
            };
            together(drive, session).await;
        }
        Commanding::WebSocket(protocol) => {
            let socket = websocket::socket(io).await;
            let (drive, channels) = websocket::command(socket, protocol, process.wanted(), watch);
            let session = async { process.serve(channels, process.start(streaming).await).await };
            together(drive, session).await;
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

    /// The client's streams and the process. A client opens its streams one after another and waits for each; meanwhile
    /// a further process starts, whose output can wait in its pipes. The container's own must not wait for streams that
    /// may never come. None: the client has gone.
    async fn open(
        &self,
        streams: spdy::Streams,
        version: spdy::Version,
        streaming: &Streaming,
    ) -> Option<(Channels<spdy::Writer>, Result<Session, ContainerError>)> {
        let channels = async { spdy::open(streams, self.wanted(), version).await.ok_or(()) };
        match self {
            Self::Exec(..) => {
                let started = async { Ok(self.start(streaming).await) };
                tokio::try_join!(channels, started).ok()
            }
            Self::Attach(..) => {
                let channels = channels.await.ok()?;
                Some((channels, self.start(streaming).await))
            }
        }
    }

    async fn serve<O: Output>(&self, channels: Channels<O>, started: Result<Session, ContainerError>) {
        // An attached client is told of the end, but not of the exit code: that is the container's, not its own.
        let tells_code = matches!(self, Self::Exec(..));
        match started {
            Ok(session) => channels.carry(session, tells_code).await,
            Err(error) => channels.tell(Outcome::Failed(chain(&error))).await,
        }
    }

    async fn start(&self, streaming: &Streaming) -> Result<Session, ContainerError> {
        match self {
            Self::Exec(id, request) => streaming.containers.exec(id, request.clone()).await,
            Self::Attach(id, request) => streaming.containers.attach(id, request.clone()).await,
        }
    }
}

async fn forward(streams: spdy::Streams, id: PodId, streaming: &Streaming) {
    port_forward::serve(streams, |port| dial(streaming.pods.clone(), id.clone(), port)).await;
}

async fn forward_named(mut port: Port<websocket::Writer>, id: &PodId, streaming: &Streaming) {
    if port.announce().await.is_ok() {
        let dialing = dial(streaming.pods.clone(), id.clone(), port.port);
        port.serve(dialing).await;
    }
}

async fn dial(pods: Arc<Pods>, id: PodId, port: u16) -> Result<TcpStream, String> {
    pods.dial(&id, port).await.map_err(|error| chain(&error))
}
