//! Traces, sent by OTLP over gRPC to a collector: never in the way of what they tell of. What does not live here: spans,
//! which are where the work is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Link, SpanId, SpanKind, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingResult, SdkTracerProvider, ShouldSample,
    SpanData, SpanExporter,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// How long spans wait for others to be sent with.
const BATCH: Duration = Duration::from_secs(1);
/// How long a collector may take to accept them.
const SEND: Duration = Duration::from_secs(3);
/// How long the daemon's end may wait for the last spans to be sent.
const LAST: Duration = Duration::from_secs(1);
/// The header that names the caller's span (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// `[traces]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The collector, as `http://HOST:PORT`; None: no traces.
    #[serde(deserialize_with = "endpoint")]
    pub endpoint: Option<String>,
    /// Of the traces that begin here, this part is kept, from 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sampling_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: None, sampling_ratio: 1.0 }
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let uri = text.parse::<http::Uri>().ok();
    match uri.filter(|uri| uri.scheme_str() == Some("http") && uri.port().is_some()) {
        Some(_) => Ok(Some(text)),
        None => Err(de::Error::custom(format!("{text:?} is not a collector such as http://127.0.0.1:4317"))),
    }
}

fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&ratio) {
        Ok(ratio)
    } else {
        Err(de::Error::custom(format!("{ratio} is not a part of the traces, from 0.0 to 1.0")))
    }
}

/// The way to the collector. Dropping it sends what is left, for a second at most.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Connects to nothing yet; within a tokio runtime. `begins` says by its name which span may begin a trace where
    /// the caller has none: all others only continue one.
    pub fn open(config: &Config, begins: fn(&str) -> bool) -> Result<Option<Self>, ExporterBuildError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let inner = Otlp::builder().with_tonic().with_endpoint(endpoint).with_timeout(SEND).build()?;
        let root = Begins { begins, sampler: Sampler::TraceIdRatioBased(config.sampling_ratio) };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let host = KeyValue::new("host.name", crate::drivers::host::hostname());
        let resource =
            Resource::builder().with_service_name("berth").with_attributes([version, host]).build();
        let exporter = Reporting { inner, endpoint: endpoint.clone(), failing: AtomicBool::new(false) };
        let batches = BatchConfigBuilder::default().with_scheduled_delay(BATCH).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_resource(resource)
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// Takes our own spans, and warnings as events in them.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let ours = filter_fn(|metadata| {
            metadata.target().starts_with("berth") && (metadata.is_span() || *metadata.level() <= Level::WARN)
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("berth"))
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // One that is not there has been told of.
        let _ = self.provider.shutdown_with_timeout(LAST);
    }
}

/// Makes a span that nobody has entered yet part of the trace that the request's headers name, if they name one.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if headers.contains_key(TRACEPARENT) {
        let caller = TraceContextPropagator::new().extract(&Headers(headers));
        // It fails where nobody collects traces.
        let _ = span.set_parent(caller);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Which traces begin here. What others began is theirs to decide.
#[derive(Clone, Debug)]
struct Begins {
    begins: fn(&str) -> bool,
    sampler: Sampler,
}

impl ShouldSample for Begins {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if (self.begins)(name) { &self.sampler } else { &Sampler::AlwaysOff };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// Says once that the collector does not take spans, and once that it does again.
#[derive(Debug)]
struct Reporting {
    inner: Otlp,
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for Reporting {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        // What came from outside is a call that was served.
        let entries = batch
            .iter_mut()
            .filter(|span| span.parent_span_is_remote || span.parent_span_id == SpanId::INVALID);
        entries.for_each(|span| span.span_kind = SpanKind::Server);
        let sent = self.inner.export(batch).await;
        match (&sent, self.failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(endpoint = self.endpoint, %error, "cannot send traces: they are lost until it takes them");
            }
            (Ok(()), true) => tracing::info!(endpoint = self.endpoint, "traces are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
