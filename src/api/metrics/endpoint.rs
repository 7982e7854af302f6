//! The HTTP/1.1 server: one page. What does not live here: what is on it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};

use super::Config;

/// How long until an address that another program has is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long to wait when the process or the node has no descriptors left; then somebody may have closed one.
const BREATH: Duration = Duration::from_millis(50);
/// How long a client may take for the head of its request.
const HEAD: Duration = Duration::from_secs(10);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether, and where, metrics can be read.
#[derive(Clone, Debug)]
pub enum Listening {
    /// Nobody wants them.
    Off,
    /// There.
    At(SocketAddr),
    /// Not yet.
    Failed {
        /// Where they should be.
        address: SocketAddr,
        /// Why they are not.
        error: String,
        /// Since when.
        since: SystemTime,
    },
}

/// The place where metrics are served.
pub struct Endpoint {
    wanted: Option<SocketAddr>,
    now: Mutex<Listening>,
}

impl Endpoint {
    /// Tries to listen. A place that can't be had is no reason not to serve pods: `run` goes on trying.
    pub async fn open(config: &Config) -> (Self, Option<TcpListener>) {
        let endpoint = Self { wanted: config.address, now: Mutex::new(Listening::Off) };
        let listener = match endpoint.wanted {
            Some(address) => endpoint.listen(address).await,
            None => None,
        };
        (endpoint, listener)
    }

    /// Serves for ever, from now or from when the place is free.
    pub async fn run(self: Arc<Self>, mut listener: Option<TcpListener>, registry: Registry) {
        let Some(address) = self.wanted else { return };
        let listener = loop {
            match listener {
                Some(listener) => break listener,
                None => tokio::time::sleep(RETRY).await,
            }
            listener = self.listen(address).await;
        };
        let registry = Arc::new(registry);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, registry.clone()))),
                Err(error) => {
                    // One refused connection must not end the others.
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// What Status tells.
    pub fn listening(&self) -> Listening {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn listen(&self, address: SocketAddr) -> Option<TcpListener> {
        let bind = async || {
            let listener = TcpListener::bind(address).await?;
            io::Result::Ok((listener.local_addr()?, listener))
        };
        let bound = bind().await;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match bound {
            Ok((address, listener)) => {
                tracing::info!("metrics at http://{address}/metrics");
                *now = Listening::At(address);
                Some(listener)
            }
            Err(error) => {
                // The first failure is told; those after it are the same one.
                if !matches!(*now, Listening::Failed { .. }) {
                    tracing::warn!(%address, %error, "no metrics: cannot listen there; trying again every {RETRY:?}");
                    let error = error.to_string();
                    *now = Listening::Failed { address, error, since: SystemTime::now() };
                }
                None
            }
        }
    }
}

async fn serve(stream: TcpStream, registry: Arc<Registry>) {
    let service = service_fn(move |request| {
        let registry = registry.clone();
        async move { Ok::<_, Infallible>(respond(&request, registry).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

async fn respond(request: &Request<Incoming>, registry: Arc<Registry>) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read by GET\n");
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    // It reads files of the kernel's.
    let page = tokio::task::spawn_blocking(move || {
        let mut page = String::new();
        text::encode(&mut page, &registry).map(|()| page)
    });
    match page.await {
        Ok(Ok(page)) => {
            let mut response = Response::new(page);
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(OPENMETRICS));
            response
        }
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_string());
    *response.status_mut() = status;
    response
}
