//! The channels of a port-forward whose ports the client has named beforehand, as clients without SPDY do: for each port
//! one of data and one of errors, and one connection. What does not live here: the connections into the pod.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use super::connection::{Writer, serve};
use super::message::Protocol;
use crate::api::streaming::inbox::Reset;
use crate::api::streaming::output::Output;
use crate::api::streaming::port_forward::Port;
use crate::api::streaming::watch::Watch;

/// Serves a connection; see `connection::serve`. Of the ports, at most 32 are served.
pub fn ports<T>(
    socket: WebSocketStream<T>,
    protocol: Protocol,
    ports: &[u16],
    watch: Arc<Watch>,
) -> (impl Future<Output = ()> + Send + use<T>, Vec<Port<Writer>>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let inputs: Vec<_> = ports.iter().flat_map(|_| [true, false]).collect();
    let (drive, mut ends) = serve(socket, protocol, &inputs, watch);
    let served = (0..32).zip(ports).filter_map(|(index, port)| {
        let reader = ends.reader(2 * index)?;
        Some(Port { port: *port, reader, data: ends.writer(2 * index), error: ends.writer(2 * index + 1) })
    });
    let served = served.collect();
    (drive, served)
}

impl Port<Writer> {
    /// Each channel begins with its port.
    pub async fn announce(&mut self) -> Result<(), Reset> {
        let port = Bytes::copy_from_slice(&self.port.to_le_bytes());
        self.data.write(port.clone()).await?;
        self.error.write(port).await
    }
}
