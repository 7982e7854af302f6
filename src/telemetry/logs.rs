//! The log: lines on standard error, as text or as JSON. What does not live here: what is said, and whom a line concerns
//! (subject).

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

/// `[log]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How a line is spelled.
    pub format: Format,
}

/// How a line is spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line, with the fields of all its spans side by side.
    Json,
}

/// Writes what the filter admits.
pub fn layer<S>(config: &Config, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    match config.format {
        Format::Text => {
            let text = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
            text.with_filter(filter).boxed()
        }
        Format::Json => {
            let json = json_subscriber::fmt::layer()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .flatten_span_list_on_top_level(true)
                .with_writer(std::io::stderr);
            json.with_filter(filter).boxed()
        }
    }
}
