//! Port forwarding: each forwarded connection is a pair of SPDY streams, data and error, with a port and a request's
//! number, and several share a client's connection; or it is one of the ports named beforehand. What does not live here: reaching into the pod (pods/port_forward.rs).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::task::JoinSet;

use super::inbox::{Reader, Reset};
use super::output::Output;
use super::spdy::{Status, Stream, Streams, Writer};

/// The one version of this protocol.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// How long the second stream of a pair may take.
const PAIRING: Duration = Duration::from_secs(30);
/// Bytes read of the pod at once.
const READ: usize = 32 << 10;

/// Which half of a pair a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Data,
    Error,
}

/// What a stream's headers say.
#[derive(Debug, PartialEq, Eq)]
struct Purpose {
    port: u16,
    role: Role,
    request: String,
}

impl Purpose {
    /// None if there is no forwarding with them.
    fn of(stream: &Stream) -> Option<Self> {
        let header = |name| stream.headers.get(name).filter(|value| !value.is_empty());
        let port = header("port")?.parse().ok().filter(|port| *port > 0)?;
        let role = match header("streamtype")? {
            "data" => Role::Data,
            "error" => Role::Error,
            _ => return None,
        };
        let request = match (header("requestid"), role) {
            (Some(request), _) => request.to_string(),
            // Old clients open the error stream first and number nothing.
            (None, Role::Error) => stream.id.to_string(),
            (None, Role::Data) => stream.id.wrapping_sub(2).to_string(),
        };
        Some(Self { port, role, request })
    }
}

/// A stream whose other half has not come.
struct Half {
    role: Role,
    port: u16,
    reader: Reader,
    writer: Writer,
    since: Instant,
}

/// Forwards until the client has gone; `dial` connects to a port of the pod.
pub async fn serve<D, F>(mut streams: Streams, dial: D)
where
    D: Fn(u16) -> F,
    F: Future<Output = Result<TcpStream, String>> + Send + 'static,
{
    let mut halves = HashMap::new();
    let mut forwards = JoinSet::new();
    let mut sweep = tokio::time::interval(PAIRING);
    loop {
        tokio::select! {
            stream = streams.next() => {
                let Some(stream) = stream else {
                    return;
                };
                if let Ok(Some((data, error))) = pair(&mut halves, stream).await {
                    forwards.spawn(forward(dial(data.port), data, error.writer));
                }
            }
            Some(_) = forwards.join_next() => {}
            _ = sweep.tick() => {
                for half in overdue(&mut halves) {
                    half.writer.reset(Status::CANCEL).await;
                }
            }
        }
    }
}

/// The data and the error stream of a request, once both are there.
async fn pair(halves: &mut HashMap<String, Half>, stream: Stream) -> Result<Option<(Half, Half)>, Reset> {
    let Some(Purpose { port, role, request }) = Purpose::of(&stream) else {
        stream.refuse().await;
        return Ok(None);
    };
    if halves.get(&request).is_some_and(|half| half.role == role) {
        stream.refuse().await;
        return Ok(None);
    }
    let (reader, writer) = stream.accept().await?;
    let half = Half { role, port, reader, writer, since: Instant::now() };
    match (halves.remove(&request), role) {
        (None, _) => {
            halves.insert(request, half);
            Ok(None)
        }
        (Some(error), Role::Data) => Ok(Some((half, error))),
        (Some(data), Role::Error) => Ok(Some((data, half))),
    }
}

fn overdue(halves: &mut HashMap<String, Half>) -> Vec<Half> {
    halves.extract_if(|_, half| half.since.elapsed() >= PAIRING).map(|(_, half)| half).collect()
}

/// Why a forwarded connection ended before both sides had said all.
enum Broken {
    Client,
    Pod(io::Error),
}

impl From<Reset> for Broken {
    fn from(_: Reset) -> Self {
        Self::Client
    }
}

async fn forward(dialing: impl Future<Output = Result<TcpStream, String>>, data: Half, mut error: Writer) {
    let Half { port, mut reader, mut writer, .. } = data;
    match through(dialing, port, &mut reader, &mut writer).await {
        Ok(()) => error.finish().await,
        Err(reason) => {
            let _ = error.write(reason.into()).await;
            error.finish().await;
            // No data that the client might take for all there was.
            writer.reset(Status::CANCEL).await;
        }
    }
}

/// A connection to a port that was named beforehand.
pub struct Port<O> {
    /// In the pod.
    pub port: u16,
    /// From the client.
    pub reader: Reader,
    /// To the client.
    pub data: O,
    /// To the client: why it has failed.
    pub error: O,
}

impl<O: Output> Port<O> {
    /// Forwards until both sides have said all, or one has gone.
    pub async fn serve(mut self, dialing: impl Future<Output = Result<TcpStream, String>>) {
        if let Err(reason) = through(dialing, self.port, &mut self.reader, &mut self.data).await {
            let _ = self.error.write(reason.into()).await;
        }
        self.error.finish().await;
    }
}

async fn through<O: Output>(
    dialing: impl Future<Output = Result<TcpStream, String>>,
    port: u16,
    reader: &mut Reader,
    writer: &mut O,
) -> Result<(), String> {
    let mut pod = dialing.await?;
    let carried = carry(&mut pod, reader, writer).await;
    carried.map_err(|error| format!("the connection to port {port} broke: {error}"))
}

/// Copies both ways; each side may end before the other.
async fn carry<O: Output>(pod: &mut TcpStream, reader: &mut Reader, writer: &mut O) -> io::Result<()> {
    let (from_pod, to_pod) = pod.split();
    let said_all = AtomicBool::new(false);
    let down = async {
        to_the_client(from_pod, writer).await?;
        said_all.store(true, Ordering::Relaxed);
        if O::ENDS { Ok(()) } else { Err(Broken::Client) }
    };
    match tokio::try_join!(to_the_pod(reader, to_pod), down) {
        Ok(_) => Ok(()),
        Err(Broken::Pod(error)) => Err(error),
        Err(Broken::Client) => {
            // What the client broke off shall look so in the pod, not like an end in good order. Once the pod has said
            // all, a reset is how clients say that they have nothing to add.
            if !said_all.load(Ordering::Relaxed) {
                let _ = pod.set_zero_linger();
            }
            Ok(())
        }
    }
}

async fn to_the_pod(reader: &mut Reader, mut pod: WriteHalf<'_>) -> Result<(), Broken> {
    while let Some(bytes) = reader.read().await? {
        if pod.write_all(&bytes).await.is_err() {
            // It reads no more, but what it has said before is still to come.
            while reader.read().await?.is_some() {}
            return Ok(());
        }
    }
    let _ = pod.shutdown().await;
    Ok(())
}

async fn to_the_client<O: Output>(pod: ReadHalf<'_>, writer: &mut O) -> Result<(), Broken> {
    loop {
        // No buffer while there is nothing to read: most of many connections are idle.
        pod.readable().await.map_err(Broken::Pod)?;
        let mut buffer = BytesMut::with_capacity(READ);
        match pod.try_read_buf(&mut buffer) {
            Ok(0) => break,
            Ok(_) => writer.write(buffer.freeze()).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Broken::Pod(error)),
        }
    }
    writer.finish().await;
    Ok(())
}

#[cfg(test)]
mod tests;
