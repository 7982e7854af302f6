//! What is done around every RPC: its span, the caller's trace, its time, its failure in the log. What does not live
//! here: any particular RPC.

use std::time::Instant;

use http::{Request, Response};
use opentelemetry::trace::Status as Outcome;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::rpc::Rpc;
use crate::telemetry::METRICS;
use crate::telemetry::traces::continue_trace;

/// Serves one request. The time of a stream is that until its begin.
pub async fn observe<S, B>(service: S, request: Request<B>) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    let Some(rpc) = Rpc::of(request.uri().path()) else {
        return service.oneshot(request).await;
    };
    let span = rpc.span();
    continue_trace(&span, request.headers());
    let mut call = Call { rpc, start: Instant::now(), code: Code::Cancelled };
    let response = service.oneshot(request).instrument(span.clone()).await?;
    // A status beside the headers: the RPC has failed.
    let status = Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""));
    call.code = status.code();
    if call.code != Code::Ok {
        span.in_scope(|| tell(rpc, &status));
    }
    Ok(response)
}

/// An RPC's error ends here, as far as the daemon is concerned: a failed change is worth a line to everybody.
fn tell(rpc: Rpc, status: &Status) {
    let (method, code, error) = (rpc.method, status.code(), status.message());
    Span::current().set_status(Outcome::error(error.to_string()));
    if rpc.changes {
        tracing::warn!(?code, error, "{method} failed");
    } else {
        tracing::debug!(?code, error, "{method} failed");
    }
}

/// A call under way. One that its client has given up is counted too, when it is dropped.
struct Call {
    rpc: Rpc,
    start: Instant,
    code: Code,
}

impl Drop for Call {
    fn drop(&mut self) {
        let [service, method] = [("service", self.rpc.service), ("method", self.rpc.method)];
        let seconds = self.start.elapsed().as_secs_f64();
        METRICS.rpc_duration.get_or_create(&[service, method]).observe(seconds);
        if self.code != Code::Ok {
            METRICS.rpc_errors.get_or_create(&[service, method, ("code", name(self.code))]).inc();
        }
    }
}

/// As gRPC's specification spells it, in the letters that Go's clients show.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
