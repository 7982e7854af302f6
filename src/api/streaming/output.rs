//! The way of a session's bytes to its client: a SPDY stream or a channel of a WebSocket.

use bytes::Bytes;

use super::inbox::Reset;

/// One way.
pub trait Output: Send {
    /// Whether the client learns of the end of this way by itself, and may go on with the other way.
    const ENDS: bool;

    /// Sends bytes; waits while the client takes none.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Reset>> + Send;

    /// Nothing more will come.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}
