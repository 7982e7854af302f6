//! Connects a pod's network namespace: by CNI plugins where they are configured, else by the built-in network.
//! What does not live here: making the namespace, and when a pod is connected.

mod attachment;
mod builtin;
mod cni;
mod configured;
mod connect;
pub mod dial;
mod kind;
pub mod netlink;
mod ready;
pub mod resolv;
mod usage;

use serde::{Deserialize, Serialize};

pub use self::attachment::{AttachedBy, Attachment, Interface, PodNetwork};
pub use self::builtin::BuiltInError;
pub use self::builtin::subnet::{Subnet, SubnetError};
pub use self::cni::CniError;
pub use self::connect::{Network, NetworkError, NotReady};
pub use self::netlink::nft::probe as probe_nftables;
pub use self::usage::{InterfaceUsage, Traffic, usage};

/// `[cni]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// Where network configurations are.
    #[serde(deserialize_with = "crate::config::absolute")]
    pub conf_dir: std::path::PathBuf,
    /// Where plugins are, first hit wins.
    #[serde(deserialize_with = "crate::config::absolute_list")]
    pub bin_dirs: Vec<std::path::PathBuf>,
    /// How long one plugin may take, in seconds.
    #[serde(deserialize_with = "configured::timeout")]
    pub timeout: u64,
}

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            timeout: 60,
        }
    }
}

/// `[network]` of the configuration: the built-in network.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuiltInConfig {
    /// Name of the bridge; at most 15 bytes. Daemons side by side need one each.
    #[serde(deserialize_with = "configured::bridge")]
    pub bridge: String,
    /// Subnets of pods, the primary one first; empty: the kubelet's pod CIDR, else 10.209.0.0/16 and
    /// fd62:6572:7468::/64. Daemons side by side need their own.
    pub subnets: Vec<Subnet>,
    /// Of the pods' interfaces, in bytes; 0: that of the host's default route.
    #[serde(deserialize_with = "configured::mtu")]
    pub mtu: u32,
    /// Hide pods behind the host's address when they talk to the world outside their subnet.
    pub masquerade: bool,
}

impl Default for BuiltInConfig {
    fn default() -> Self {
        Self { bridge: "berth0".into(), subnets: Vec::new(), mtu: 0, masquerade: true }
    }
}
