//! A collector of traces, as operators run one: it takes what the daemon sends by OTLP over gRPC.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

/// A running collector; it ends with its guard.
pub struct Collector {
    address: SocketAddr,
    received: Received,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Collector {
    /// On a free loopback port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, received) = (listener.local_addr()?, Received::default());
        let server = Server::builder().add_service(TraceServiceServer::new(received.clone()));
        let task = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(Self { address, received, task })
    }

    /// Where spans are to be sent.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has been received.
    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `service.name` of who has sent something, once each time.
    pub fn services(&self) -> Vec<String> {
        self.received.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a span of this name: the daemon sends from time to time.
    pub async fn wait_for(&self, name: &str) -> Result<Span> {
        crate::eventually(Duration::from_secs(20), async || {
            let spans = self.spans();
            let names = || spans.iter().map(|span| &*span.name).collect::<Vec<_>>();
            let found = spans.iter().find(|span| span.name == name).cloned();
            found.with_context(|| format!("no span {name} among {:?}", names()))
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let service = texts(&resource.attributes).remove("service.name");
            self.services.lock().unwrap_or_else(PoisonError::into_inner).extend(service);
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Attributes that are texts.
pub fn texts(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |one: &KeyValue| match &one.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some((one.key.clone(), text.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}
