//! The gRPC server on its unix socket: accept, serve, drain. What does not live here: any service.
//!
//! tonic's own server would end a call at the client's deadline with the code CANCELLED; the client knows its deadline
//! best, and a call that it gives up is dropped here as the stream ends.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tonic::service::Routes;

use super::observe::observe;

/// How long to wait when the process or the node has no descriptors left; then somebody may have closed one.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `stop` ends, then lets calls under way finish, for `patience` at most.
pub async fn serve(
    routes: Routes,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
    patience: Duration,
) {
    let routes = routes.prepare();
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connect(&graceful, routes.clone(), stream),
                Err(error) => {
                    // One refused connection must not end the others.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(patience, graceful.shutdown()).await;
}

fn connect(graceful: &GracefulShutdown, routes: Routes, stream: UnixStream) {
    let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        observe(routes.clone(), request.map(tonic::body::Body::new))
    });
    let service = TowerToHyperService::new(service);
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder.http2().max_concurrent_streams(Some(1000));
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke");
        }
    });
}
