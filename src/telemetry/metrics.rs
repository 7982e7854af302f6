//! Every counter and histogram of the daemon. What does not live here: gauges, which are read from what they count
//! when somebody asks (api/metrics/state.rs), and what becomes of the numbers.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Leak, Stage};

/// The one set of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// Upper bounds in seconds: from an exec to a container that takes long to stop.
const CALL: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Upper bounds in seconds: from an image that is there to one of many gigabytes.
const PULL: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];
/// Registries that have a series of their own; pods name them, so there could be any number.
const REGISTRIES_MAX: usize = 32;
/// All others.
const OTHER: &str = "other";

/// Labels whose values come from a fixed list: keys and values.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A registry, as [`registry`] makes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRegistry {
    registry: String,
}

/// Why a pull from a registry failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    registry: String,
    reason: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counters and histograms; each says in `register` what it is.
#[expect(missing_docs, reason = "`register` has the help text of each")]
pub struct Metrics {
    pub rpc_duration: Histograms<Labels<2>>,
    pub rpc_errors: Family<Labels<3>, Counter>,
    pub stage_duration: Histograms<Labels<1>>,
    pub pod_start: Histogram,
    pub pull_duration: Histograms<OfRegistry>,
    pub pull_bytes: Family<OfRegistry, Counter>,
    pub pull_retries: Family<OfRegistry, Counter>,
    pub pull_failures: Family<Failure, Counter>,
    pub pulls_in_progress: Gauge,
    pub shim_exits: Counter,
    pub restarts: Counter,
    pub leaks_found: Family<Labels<1>, Counter>,
    pub leaks_mended: Family<Labels<1>, Counter>,
    pub oom_kills: Counter,
    pub streams: Family<Labels<1>, Gauge>,
}

impl Default for Metrics {
    /// What can have few labels only has them from the start: alerts want to see a counter at 0 before it moves.
    fn default() -> Self {
        let metrics = Self {
            rpc_duration: Family::new_with_constructor(|| Histogram::new(CALL)),
            rpc_errors: Family::default(),
            stage_duration: Family::new_with_constructor(|| Histogram::new(CALL)),
            pod_start: Histogram::new(CALL),
            pull_duration: Family::new_with_constructor(|| Histogram::new(PULL)),
            pull_bytes: Family::default(),
            pull_retries: Family::default(),
            pull_failures: Family::default(),
            pulls_in_progress: Gauge::default(),
            shim_exits: Counter::default(),
            restarts: Counter::default(),
            leaks_found: Family::default(),
            leaks_mended: Family::default(),
            oom_kills: Counter::default(),
            streams: Family::default(),
        };
        for stage in Stage::ALL {
            drop(metrics.stage_duration.get_or_create(&[("stage", stage.name())]));
        }
        for kind in Leak::ALL {
            drop(metrics.leaks_found.get_or_create(&kind.labels()));
            drop(metrics.leaks_mended.get_or_create(&kind.labels()));
        }
        for kind in ["exec", "attach", "port_forward"] {
            drop(metrics.streams.get_or_create(&[("kind", kind)]));
        }
        metrics
    }
}

impl Metrics {
    /// Shows all of them under the prefix that `to` has.
    pub fn register(&self, to: &mut Registry) {
        let seconds = || Unit::Seconds;
        to.register_with_unit(
            "rpc_duration",
            "From an RPC's request to its answer",
            seconds(),
            self.rpc_duration.clone(),
        );
        to.register("rpc_errors", "RPCs that ended with a status other than OK", self.rpc_errors.clone());
        to.register_with_unit(
            "pod_start_stage_duration",
            "Steps of RunPodSandbox that succeeded, and making and starting containers",
            seconds(),
            self.stage_duration.clone(),
        );
        to.register_with_unit(
            "pod_start_duration",
            "RunPodSandbox as a whole, where it succeeded",
            seconds(),
            self.pod_start.clone(),
        );
        to.register_with_unit(
            "image_pull_duration",
            "Pulls that succeeded, of images that were there already too",
            seconds(),
            self.pull_duration.clone(),
        );
        to.register("image_pull_bytes", "Bytes of blobs that registries have sent", self.pull_bytes.clone());
        to.register(
            "image_pull_retries",
            "Requests to registries that were made again",
            self.pull_retries.clone(),
        );
        to.register("image_pull_failures", "Pulls that failed", self.pull_failures.clone());
        to.register("image_pulls_in_progress", "Pulls under way", self.pulls_in_progress.clone());
        to.register("shim_unexpected_exits", "Shims that died under a ready pod", self.shim_exits.clone());
        to.register(
            "restarts",
            "Starts of the daemon that found an earlier one's state",
            self.restarts.clone(),
        );
        to.register("leaks_found", "Things on the node that nobody owned any more", self.leaks_found.clone());
        to.register("leaks_mended", "Those of them that were removed", self.leaks_mended.clone());
        to.register(
            "container_oom_kills",
            "Kills for lack of memory, in containers that have ended",
            self.oom_kills.clone(),
        );
        to.register("streams_active", "Sessions of exec, attach and port-forward", self.streams.clone());
    }
}

/// The label of a registry: its name, for as many of them as may have a series of their own.
pub fn registry(name: &str) -> OfRegistry {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    OfRegistry { registry: bounded(&KNOWN, name).to_string() }
}

/// The labels of a pull that failed; `reason` is of a fixed list.
pub fn failure(OfRegistry { registry }: &OfRegistry, reason: &'static str) -> Failure {
    Failure { registry: registry.clone(), reason }
}

fn bounded<'a>(known: &Mutex<BTreeSet<String>>, name: &'a str) -> &'a str {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(name) || known.len() < REGISTRIES_MAX && known.insert(name.to_string()) {
        name
    } else {
        OTHER
    }
}

/// One more of something that is counted while it lasts.
#[must_use = "it counts until it is dropped"]
pub struct Ongoing(Gauge);

impl Ongoing {
    /// Begins.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_counted_apart_only_up_to_a_bound() {
        let known = Mutex::new(BTreeSet::new());
        let names: Vec<_> = (0..REGISTRIES_MAX + 5).map(|number| format!("r{number}")).collect();
        let labels: Vec<_> = names.iter().map(|name| bounded(&known, name)).collect();
        assert_eq!(labels[..REGISTRIES_MAX], names[..REGISTRIES_MAX]);
        assert!(labels[REGISTRIES_MAX..].iter().all(|label| *label == OTHER));
        assert_eq!(bounded(&known, "r3"), "r3");
    }

    #[test]
    fn what_goes_on_is_counted_until_it_ends() {
        let gauge = Gauge::<i64>::default();
        let (one, two) = (Ongoing::new(&gauge), Ongoing::new(&gauge));
        assert_eq!(gauge.get(), 2);
        drop((one, two));
        assert_eq!(gauge.get(), 0);
    }
}
