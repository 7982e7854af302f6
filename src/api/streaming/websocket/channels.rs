//! A WebSocket connection of exec or attach: five channels, one connection. What does not live here: what goes through them.

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
use crate::api::streaming::inbox::{Budget, Feeder, Reset, inbox};
use crate::api::streaming::output::Output;
use crate::api::streaming::remote_command::{Channels, Wanted};
use crate::api::streaming::watch::{LINGER, Watch};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

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

/// Serves a connection. The future does all the work and ends with the connection; the channels are for the session.
pub fn serve<T>(
    socket: WebSocketStream<T>,
    protocol: Protocol,
    wanted: Wanted,
    watch: Arc<Watch>,
) -> (impl Future<Output = ()> + Send, Channels<Writer>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (messages, queued) = mpsc::channel(MESSAGES);
    let budget = Arc::<Budget>::default();
    let input = |wanted: bool| {
        let pair = wanted.then(|| inbox(budget.clone(), Box::new(|_| ())));
        pair.unzip()
    };
    let (stdin_feeder, stdin) = input(wanted.stdin);
    let (resize_feeder, resize) = input(wanted.tty);
    let output = |channel| Writer { channel, protocol, messages: messages.clone() };
    let channels = Channels {
        stdin,
        resize,
        stdout: wanted.stdout.then(|| output(STDOUT)),
        stderr: wanted.stderr.then(|| output(STDERR)),
        error: output(ERROR),
        unused: Vec::new(),
        format: protocol.format,
    };
    // Some clients wait for a first message before they say anything.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = messages.try_send(protocol.encode(first, b""));
    let (sink, stream) = socket.split();
    let reading = Reading { protocol, stdin: stdin_feeder, resize: resize_feeder, watch: watch.clone() };
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
    (drive, channels)
}

struct Reading {
    protocol: Protocol,
    stdin: Option<Feeder>,
    resize: Option<Feeder>,
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
        match channel {
            STDIN => self.stdin.as_ref(),
            RESIZE => self.resize.as_ref(),
            _ => None,
        }
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

impl Output for Writer {
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
