//! Connects a pod's network namespace: by CNI plugins where they are configured, else by the built-in network.

use serde::Deserialize;

/// `[cni]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// Where network configurations are.
    pub conf_dir: std::path::PathBuf,
    /// Where plugins are, first hit wins.
    pub bin_dirs: Vec<std::path::PathBuf>,
}

impl Default for CniConfig {
    fn default() -> Self {
        Self { conf_dir: "/etc/cni/net.d".into(), bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()] }
    }
}

/// `[network]` of the configuration: the built-in network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuiltInConfig {
    /// Name of the bridge; at most 15 bytes.
    pub bridge: String,
}

impl Default for BuiltInConfig {
    fn default() -> Self {
        Self { bridge: "berth0".into() }
    }
}
