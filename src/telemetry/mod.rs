//! What operators look at: metrics, traces and logs. Everybody may count, time and name things here; what the numbers
//! are read from at a scrape, and who serves them, lives in api/metrics.

pub mod leak;
pub mod logs;
pub mod metrics;
pub mod stage;
pub mod subject;
pub mod traces;

use tokio::task::JoinHandle;
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use leak::Leak;
pub use metrics::METRICS;
pub use stage::{Stage, stage};
use traces::Traces;

/// `spawn_blocking` within the caller's span.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// From here on, lines are written and spans are sent.
pub fn start(logs: &logs::Config, filter: EnvFilter, traces: Option<&Traces>) {
    let lines = logs::layer(logs, subject::admit(filter));
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).init();
}
