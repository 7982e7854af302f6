//! The HTTP/1.1 server to which clients bring their tokens: accept, answer, upgrade. What does not live here: what a session
//! does after the upgrade.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::handshake::{self, Answer, refuse};
use super::session;
use super::tls::Tls;
use super::watch::Watch;
use super::{Promise, Streaming};

/// How long to wait when the process or the node has no descriptors left; then somebody may have closed one.
const BREATH: Duration = Duration::from_millis(50);
/// How long a client may take for its handshake, and for the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// The server. What it has begun to serve ends with the daemon.
pub struct Server {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    streaming: Arc<Streaming>,
}

impl Server {
    pub(super) fn new(listener: TcpListener, tls: Option<Tls>, streaming: Arc<Streaming>) -> Self {
        Self { listener, tls: tls.map(Arc::new), streaming }
    }

    /// Serves for ever.
    pub async fn run(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(connect(stream, self.tls.clone(), self.streaming.clone()));
                }
                Err(error) => {
                    // One refused connection must not end the others.
                    tracing::warn!(%error, "cannot accept a streaming connection");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

async fn connect(stream: TcpStream, tls: Option<Arc<Tls>>, streaming: Arc<Streaming>) {
    // Keys and their echoes are small.
    let _ = stream.set_nodelay(true);
    let watch = Arc::new(Watch::new(&stream, streaming.idle));
    let Some(tls) = tls else {
        return serve(stream, watch, streaming).await;
    };
    match tokio::time::timeout(HEAD, shake(&tls, stream)).await {
        Ok(Ok(stream)) => serve(stream, watch, streaming).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took more than {HEAD:?}"),
    }
}

async fn shake(tls: &Arc<Tls>, stream: TcpStream) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let tls = tls.clone();
    let config = tokio::task::spawn_blocking(move || tls.config()).await?;
    TlsAcceptor::from(config).accept(stream).await
}

async fn serve<T>(io: T, watch: Arc<Watch>, streaming: Arc<Streaming>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = respond(request, watch.clone(), streaming.clone());
        async move { Ok::<_, Infallible>(answer.unwrap_or_else(|refusal| refusal)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a streaming request broke");
    }
}

/// Answers, and begins the session that follows.
fn respond(
    request: Request<Incoming>,
    watch: Arc<Watch>,
    streaming: Arc<Streaming>,
) -> Result<Answer, Answer> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "a session is opened by GET or POST"));
    }
    let promise = redeem(request.uri().path(), &streaming);
    let promise = promise.ok_or_else(|| refuse(StatusCode::NOT_FOUND, "there is no such session"))?;
    let (method, headers) = (request.method(), request.headers());
    let (plan, answer) = match promise {
        Promise::Exec(id, request) => {
            let (speaking, answer) = handshake::commanding(method, headers)?;
            (session::Plan::Exec(id, request, speaking), answer)
        }
        Promise::Attach(id, request) => {
            let (speaking, answer) = handshake::commanding(method, headers)?;
            (session::Plan::Attach(id, request, speaking), answer)
        }
        Promise::PortForward(id, ports) => {
            let (speaking, answer) = handshake::forwarding(method, headers)?;
            (session::Plan::PortForward(id, ports, speaking), answer)
        }
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => plan.run(TokioIo::new(upgraded), watch, &streaming).await,
            Err(error) => tracing::debug!(%error, "a streaming connection ended before its session"),
        }
    });
    Ok(answer)
}

/// What was promised at this path, of this kind.
fn redeem(path: &str, streaming: &Streaming) -> Option<Promise> {
    let (word, token) = path.strip_prefix('/')?.split_once('/')?;
    streaming.tokens.redeem(token).filter(|promise| promise.word() == word)
}
