//! The way to a daemon's socket, Berth's or another runtime's. What does not live here: what is asked there.

use std::error::Error;
use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Fails if nobody listens.
pub async fn connect(socket: &Path) -> Result<Channel, Box<dyn Error + Send + Sync>> {
    // Asked here, as the transport's own error hides why.
    drop(UnixStream::connect(socket).await?);
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://runtime.sock").connect_with_connector(connector).await?)
}
