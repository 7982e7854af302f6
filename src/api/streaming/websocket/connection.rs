//! A WebSocket connection with its channels. What does not live here: what the channels are for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::message::{MessageError, Protocol, Said};
use crate::api::streaming::inbox::{Budget, Feeder, Reader, Reset, inbox};
use crate::api::streaming::output::Output;
use crate::api::streaming::watch::{LINGER, Watch};

/// Messages that wait to be written, of 32 KiB each.
const MESSAGES: usize = 4;
/// Bytes of a message.
const PIECE: usize = 32 << 10;

/// Why a connection ended before its session.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the connection broke")]
    WebSocket(#[from] Error),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the client has gone")]
    Gone,
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
}

/// The session's ends of a connection's channels.
pub struct Ends {
    protocol: Protocol,
    readers: Vec<Option<Reader>>,
    messages: mpsc::Sender<Message>,
}

impl Ends {
    /// What the client says on a channel; only once, and only of one that was asked for.
    pub fn reader(&mut self, channel: u8) -> Option<Reader> {
        self.readers.get_mut(usize::from(channel)).and_then(Option::take)
    }

    /// The way to the client on a channel.
    pub fn writer(&self, channel: u8) -> Writer {
        Writer { channel, protocol: self.protocol, messages: self.messages.clone() }
    }
}

/// Serves a connection. `inputs` tells of each channel, from 0, whether the session reads it. The future does all the work
/// and ends with the connection; the ends are for the session.
pub fn serve<T>(
    socket: WebSocketStream<T>,
    protocol: Protocol,
    inputs: &[bool],
    watch: Arc<Watch>,
) -> (impl Future<Output = ()> + Send + use<T>, Ends)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (messages, queued) = mpsc::channel(MESSAGES);
    let budget = Arc::<Budget>::default();
    let pairs = inputs.iter().map(|wanted| wanted.then(|| inbox(budget.clone(), Box::new(|_| ()))).unzip());
    let (feeders, readers) = pairs.unzip();
    let (sink, stream) = socket.split();
    let reading = Reading { protocol, feeders, watch: watch.clone() };
    let drive = async move {
        let ended = tokio::select! {
            ended = async {
                tokio::pin! { let reading = reading.run(stream); }
                tokio::select! {
                    ended = &mut reading => ended,
                    written = write(queued, sink, &watch) => {
                        written?;
                        tokio::time::timeout(LINGER, reading).await.unwrap_or(Ok(()))
                    }
                }
            } => ended,
            limit = watch.idle() => Err(Broken::Idle(limit)),
        };
        if let Err(error) = ended {
            tracing::debug!(error = crate::error::chain(&error), "a streaming connection ended early");
        }
    };
    (drive, Ends { protocol, readers, messages })
}

struct Reading {
    protocol: Protocol,
    feeders: Vec<Option<Feeder>>,
    watch: Arc<Watch>,
}

impl Reading {
    /// Ends with the connection.
    async fn run<T>(self, mut stream: SplitStream<WebSocketStream<T>>) -> Result<(), Broken>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(message) = stream.next().await {
            let message = match message {
                Ok(message) => message,
                Err(Error::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.watch.touch();
            match self.protocol.decode(message)? {
                Said::Bytes(channel, bytes) => {
                    if let Some(feeder) = self.feeder(channel) {
                        tokio::select! {
                            biased;
                            () = feeder.feed(bytes) => {}
                            () = self.watch.hung_up() => return Err(Broken::Gone),
                        }
                    }
                }
                Said::Close(channel) => {
                    if let Some(feeder) = self.feeder(channel) {
                        feeder.finish();
                    }
                }
                Said::Nothing => {}
            }
        }
        Ok(())
    }

    /// None for a channel that the session does not read.
    fn feeder(&self, channel: u8) -> Option<&Feeder> {
        self.feeders.get(usize::from(channel))?.as_ref()
    }
}

/// Ends when no session can write any more; then the client is told, and may close.
async fn write<T>(
    mut messages: mpsc::Receiver<Message>,
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    watch: &Watch,
) -> Result<(), Broken>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = messages.recv().await {
        sink.send(message).await?;
        watch.touch();
    }
    Ok(super::close(&mut sink).await?)
}

/// A channel to the client.
pub struct Writer {
    channel: u8,
    protocol: Protocol,
    messages: mpsc::Sender<Message>,
}

impl Writer {
    /// An empty message; the first on a connection.
    pub fn greet(&self) {
        // There is room for it before anything else is said.
        let _ = self.messages.try_send(self.protocol.encode(self.channel, b""));
    }
}

impl Output for Writer {
    const ENDS: bool = false;

    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Reset> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.messages.send(self.protocol.encode(self.channel, &piece)).await.map_err(|_| Reset)?;
        }
        Ok(())
    }

    /// Nothing is said: the end of the connection is the end of its channels.
    async fn finish(&mut self) {}
}
