//! Exec, attach and port-forward as the kubelet reaches them: an RPC promises a session and names a URL (`token`), the
//! client comes there by HTTP (`server`) and has the connection upgraded (`handshake`) to SPDY (`spdy`) or WebSocket
//! (`websocket`), and then bytes are copied (`remote_command`, `port_forward`). What does not live here: processes and
//! pods.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
mod inbox;
mod outcome;
mod output;
mod port_forward;
mod remote_command;
mod resize;
mod server;
mod session;
mod spdy;
mod tls;
mod token;
mod watch;
mod websocket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

pub use server::Server;
pub use tls::TlsError;
pub use token::TokenError;

use crate::containers::{AttachRequest, Containers, ExecRequest};
use crate::ids::{ContainerId, PodId};
use crate::pods::Pods;
use tls::Tls;
use token::Tokens;

/// `[streaming]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub address: IpAddr,
    /// 0: any free one.
    pub port: u16,
    /// PEM of the certificate and those that vouch for it.
    #[serde(deserialize_with = "crate::config::absolute_or_none")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM of its key.
    #[serde(deserialize_with = "crate::config::absolute_or_none")]
    pub tls_key_file: Option<PathBuf>,
    /// A session on which nothing moves for so long is ended.
    #[serde(with = "crate::config::duration")]
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            tls_cert_file: None,
            tls_key_file: None,
            idle_timeout: Duration::from_secs(4 * 3600),
        }
    }
}

/// Why there is no streaming server.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    /// The address is taken, or not this node's.
    #[error("cannot listen at {address} for streaming sessions")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// A further process in a container.
    Exec(ContainerId, ExecRequest),
    /// A container's own streams.
    Attach(ContainerId, AttachRequest),
    /// A pod's ports; those that the client has named beforehand, if it can name none later.
    PortForward(PodId, Vec<u16>),
}

impl Promise {
    /// The word for it in URLs.
    fn word(&self) -> &'static str {
        match self {
            Self::Exec(..) => "exec",
            Self::Attach(..) => "attach",
            Self::PortForward(..) => "portforward",
        }
    }
}

/// Sessions promised, and what they need.
pub struct Streaming {
    tokens: Tokens<Promise>,
    base: String,
    idle: Duration,
    containers: Arc<Containers>,
    pods: Arc<Pods>,
}

impl Streaming {
    /// Listens; nobody is served before the server runs.
    pub async fn bind(
        config: Config,
        containers: Arc<Containers>,
        pods: Arc<Pods>,
    ) -> Result<(Arc<Self>, Server), StreamingError> {
        let address = SocketAddr::new(config.address, config.port);
        let failed = |source| StreamingError::Listen { address, source };
        let tls = Tls::open(config.tls_cert_file, config.tls_key_file)?;
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", SocketAddr::new(reachable(bound.ip()), bound.port()));
        let streaming = Self { tokens: Tokens::default(), base, idle: config.idle_timeout, containers, pods };
        let streaming = Arc::new(streaming);
        Ok((streaming.clone(), Server::new(listener, tls, streaming)))
    }

    /// The URL at which a client gets its session, once and within a minute.
    pub fn promise(&self, promise: Promise) -> Result<String, TokenError> {
        let word = promise.word();
        let token = self.tokens.promise(promise)?;
        Ok(format!("{}/{word}/{token}", self.base))
    }
}

/// An address that the kubelet, on the same node, can connect to.
fn reachable(bound: IpAddr) -> IpAddr {
    match bound {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}
