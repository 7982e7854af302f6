//! The channels of exec and attach. What does not live here: what goes through them.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use super::connection::{Writer, serve};
use super::message::Protocol;
use crate::api::streaming::remote_command::{Channels, Wanted};
use crate::api::streaming::watch::Watch;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Serves a connection; see `connection::serve`.
pub fn command<T>(
    socket: WebSocketStream<T>,
    protocol: Protocol,
    wanted: Wanted,
    watch: Arc<Watch>,
) -> (impl Future<Output = ()> + Send, Channels<Writer>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let inputs = [wanted.stdin, false, false, false, wanted.tty];
    let (drive, mut ends) = serve(socket, protocol, &inputs, watch);
    let channels = Channels {
        stdin: ends.reader(STDIN),
        resize: ends.reader(RESIZE),
        stdout: wanted.stdout.then(|| ends.writer(STDOUT)),
        stderr: wanted.stderr.then(|| ends.writer(STDERR)),
        error: ends.writer(ERROR),
        unused: Vec::new(),
        format: protocol.format,
    };
    // Some clients wait for a first message before they say anything.
    channels.stdout.as_ref().or(channels.stderr.as_ref()).unwrap_or(&channels.error).greet();
    (drive, channels)
}
