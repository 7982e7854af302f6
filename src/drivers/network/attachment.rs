//! What a pod asks of the network, and what it got. What does not live here: how.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::builtin::{Holding, Lease};
use crate::ids::PodId;
use crate::pods::spec::{Dns, PortMapping};

/// A pod to connect.
#[derive(Clone, Debug, PartialEq)]
pub struct PodNetwork {
    /// Its id.
    pub id: PodId,
    /// metadata.name.
    pub name: String,
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.uid.
    pub uid: String,
    /// The pinned network namespace.
    pub netns: PathBuf,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// For plugins that want it.
    pub dns: Option<Dns>,
    /// For plugins that want them, and the bandwidth.
    pub annotations: BTreeMap<String, String>,
    /// For plugins that want it.
    pub cgroup_parent: String,
}

/// What a connected pod has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its addresses, the primary one first; never empty.
    pub ips: Vec<IpAddr>,
    /// Links made for it.
    pub interfaces: Vec<Interface>,
    /// By whom.
    pub by: AttachedBy,
}

impl Attachment {
    /// As the result of a CNI ADD (CNI spec, section 5): what the plugins said, or the same of the built-in network.
    pub fn result(&self, netns: &Path) -> Value {
        let holding = match &self.by {
            AttachedBy::Cni { result, .. } => return result.clone(),
            AttachedBy::BuiltIn(holding) => holding,
        };
        let inside = self.interfaces.iter().position(|interface| interface.sandbox);
        let interface = |interface: &Interface| {
            let sandbox = interface.sandbox.then_some(netns);
            json!({ "name": interface.name, "mac": interface.mac, "sandbox": sandbox })
        };
        let address = |lease: &Lease| {
            let address = format!("{}/{}", lease.ip, lease.prefix);
            json!({ "address": address, "gateway": lease.gateway, "interface": inside })
        };
        let route = |lease: &Lease| {
            let all = if lease.ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            json!({ "dst": all, "gw": lease.gateway })
        };
        json!({
            "cniVersion": "1.1.0",
            "interfaces": self.interfaces.iter().map(interface).collect::<Vec<_>>(),
            "ips": holding.leases.iter().map(address).collect::<Vec<_>>(),
            "routes": holding.leases.iter().map(route).collect::<Vec<_>>(),
            "dns": {},
        })
    }
}

/// A link made for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// In the pod's namespace, not the host's.
    pub sandbox: bool,
}

/// Who connected a pod, with what it takes to undo it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AttachedBy {
    /// The built-in network.
    BuiltIn(Holding),
    /// CNI plugins.
    Cni {
        /// Name of the network.
        network: String,
        /// The list of plugins that ADD used.
        config: Value,
        /// What the last plugin printed.
        result: Value,
    },
}
