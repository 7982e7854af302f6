//! The daemon's own metrics as Prometheus asks for them. What does not live here: metrics of pods and containers, which
//! the kubelet asks for (api/cri/metrics), and counting (telemetry).

mod endpoint;
mod process;
mod state;

use std::net::{Ipv4Addr, SocketAddr};

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use endpoint::{Endpoint, Listening};

use super::cri::Services;
use crate::telemetry::METRICS;

/// `[metrics]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen; None: nowhere.
    #[serde(deserialize_with = "address")]
    pub address: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self { address: Some((Ipv4Addr::LOCALHOST, 9740).into()) }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |_| de::Error::custom(format!("{text:?} is not an address such as 127.0.0.1:9740"));
    text.parse().map(Some).map_err(bad)
}

/// Everything that is shown.
pub fn registry(services: &Services) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(process::Process));
    let berth = registry.sub_registry_with_prefix("berth");
    METRICS.register(berth);
    berth.register_collector(Box::new(state::State::new(services.clone())));
    let commit = option_env!("BERTH_COMMIT").unwrap_or("unknown");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", commit)]);
    berth.register("build", "What this program was built from", build);
    registry
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode_registry;

    use super::*;

    /// Names are a contract with alerts and dashboards: charts/berth.
    #[test]
    fn counters_are_named_as_agreed_and_begin_at_zero() {
        let mut registry = Registry::with_prefix("berth");
        METRICS.register(&mut registry);
        let mut text = String::new();
        encode_registry(&mut text, &registry).unwrap();
        for line in [
            "# TYPE berth_pod_start_stage_duration_seconds histogram",
            "berth_leaks_found_total{kind=\"netns\"} 0",
            "berth_leaks_mended_total{kind=\"address\"} 0",
            "berth_shim_unexpected_exits_total 0",
            "berth_image_pulls_in_progress 0",
        ] {
            // Other tests of this process count too.
            let (start, _) = line.rsplit_once(' ').unwrap();
            assert!(text.lines().any(|found| found.starts_with(start)), "{line}\n{text}");
        }
    }
}
