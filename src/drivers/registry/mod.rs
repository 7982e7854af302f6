//! Talks to image registries (distribution-spec). What does not live here: what to do with what they send.

use serde::Deserialize;

/// `[registry]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of `HOST/hosts.toml` files, in containerd's format.
    pub config_path: std::path::PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { config_path: "/etc/berth/certs.d".into() }
    }
}
