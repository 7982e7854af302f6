//! WebSocket sessions: `message` is the channel protocol's framing, `connection` carries channels, `command` has those of
//! exec and attach and `ports` those of a port-forward; `tunnel` carries SPDY in messages instead. The framing of WebSocket
//! itself is tungstenite's.

mod command;
mod connection;
mod message;
mod ports;
mod tunnel;

use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

pub use command::command;
pub use connection::Writer;
#[cfg(any(test, fuzzing))]
pub use message::Said;
pub use message::{Protocol, VERSIONS};
pub use ports::ports;
pub use tunnel::{PROTOCOL as TUNNEL, tunnel};

/// Largest message taken. Clients send what they have read at once, some a whole file.
const MESSAGE: usize = 16 << 20;
/// Bytes read of the connection at once, and kept to be written together.
const BUFFER: usize = 16 << 10;

/// A connection that has just been upgraded, as a WebSocket.
pub async fn socket<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Ends our side in good order: clients take an end without a code for an error.
async fn close<T>(sink: &mut SplitSink<WebSocketStream<T>, Message>) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(normal))).await?;
    sink.close().await
}

#[cfg(test)]
mod tests;
