//! What operators look at: metrics, traces and logs. Everybody may count, time and name things here; what the numbers
//! are read from at a scrape, and who serves them, lives in api/metrics.

pub mod leak;
pub mod logs;
pub mod metrics;
pub mod stage;
pub mod subject;
pub mod traces;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use leak::Leak;
pub use metrics::METRICS;
pub use stage::{Stage, stage};
use traces::Traces;

/// From here on, lines are written and spans are sent.
pub fn start(logs: &logs::Config, filter: EnvFilter, traces: Option<&Traces>) {
    let lines = logs::layer(logs, filter);
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).init();
}
