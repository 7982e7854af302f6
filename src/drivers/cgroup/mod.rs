//! Control groups of pods and containers, v2 and v1, by cgroupfs or by systemd.

use serde::Deserialize;

/// `[cgroup]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}
