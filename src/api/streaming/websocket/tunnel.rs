//! SPDY carried by WebSocket messages: how kubectl and crictl forward ports over WebSocket. The messages' borders mean
//! nothing. What does not live here: SPDY.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// As clients name it in `Sec-WebSocket-Protocol`.
pub const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// Bytes on their way, each way.
const PIPE: usize = 64 << 10;
/// How long a client may take to answer the end of the WebSocket.
const GOODBYE: Duration = Duration::from_secs(10);

/// The bytes inside a WebSocket. The future moves them, and ends when both ways are at their end.
pub fn tunnel<T>(socket: WebSocketStream<T>) -> (impl Future<Output = ()> + Send, DuplexStream)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (inner, outer) = tokio::io::duplex(PIPE);
    let pump = async move {
        let (sink, stream) = socket.split();
        let (from_inner, to_inner) = tokio::io::split(outer);
        let inward = receive(stream, to_inner);
        let outward = send(from_inner, sink);
        tokio::pin!(inward, outward);
        tokio::select! {
            () = &mut inward => {
                let _ = outward.await;
            }
            sent = &mut outward => {
                if sent.is_ok() {
                    let _ = tokio::time::timeout(GOODBYE, inward).await;
                }
            }
        }
    };
    (pump, inner)
}

/// Whatever ends the messages ends the bytes.
async fn receive<T>(mut messages: SplitStream<WebSocketStream<T>>, mut inner: WriteHalf<DuplexStream>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = messages.next().await {
        if let Message::Binary(bytes) = message
            && inner.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
    let _ = inner.shutdown().await;
}

async fn send<T>(
    mut inner: ReadHalf<DuplexStream>,
    mut messages: SplitSink<WebSocketStream<T>, Message>,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIPE);
        if inner.read_buf(&mut buffer).await? == 0 {
            return super::close(&mut messages).await.map_err(io::Error::other);
        }
        messages.send(Message::Binary(buffer.split().freeze())).await.map_err(io::Error::other)?;
    }
}
