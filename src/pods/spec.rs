//! What the kubelet asks of a pod, validated: the domain's own types, stored as they are. No CRI types here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::containers::spec::{IdMapping, Resources, Seccomp, SelinuxLabel};

/// A pod sandbox as requested (CRI PodSandboxConfig).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodSpec {
    /// Who the pod is; unique among live pods.
    pub metadata: PodMetadata,
    /// Host name inside; empty with the host's UTS namespace.
    pub hostname: String,
    /// Absolute directory of the containers' logs; empty = no logs.
    pub log_directory: String,
    /// None: the host's resolv.conf.
    pub dns: Option<Dns>,
    /// Ports of the host that lead into the pod.
    pub ports: Vec<PortMapping>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given, returned unaltered.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup (cgroupfs) or slice (systemd) made by the kubelet; empty = Berth's own parent.
    pub cgroup_parent: String,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Which namespaces are the host's, and which are shared.
    pub namespaces: PodNamespaces,
    /// May contain privileged containers.
    pub privileged: bool,
    /// The sandbox's own profile; the containers have theirs.
    pub seccomp: Seccomp,
    /// SELinux label of the pod; its level is that of its files.
    #[serde(default)]
    pub selinux: Option<SelinuxLabel>,
    /// Named runtime; empty = the default.
    pub runtime_handler: String,
    /// Extra resources that the runtime itself may take.
    pub overhead: Option<Resources>,
    /// The pod's resources together.
    pub resources: Option<Resources>,
}

/// What a whole pod may take, after an update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodLimits {
    /// Extra resources that the runtime itself may take.
    pub overhead: Option<Resources>,
    /// The containers' resources together.
    pub resources: Option<Resources>,
}

/// A pod's name (CRI PodSandboxMetadata). Shown as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodMetadata {
    /// metadata.name of the Pod.
    pub name: String,
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.uid.
    pub uid: String,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
}

impl std::fmt::Display for PodMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// resolv.conf's content (CRI DNSConfig).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// resolv.conf(5) options.
    pub options: Vec<String>,
}

/// A port of the host that leads into the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport.
    pub protocol: Protocol,
    /// Port inside, 1..=65535.
    pub container_port: u16,
    /// Port on the host, 1..=65535 (a mapping with host port 0 is none and is dropped at the edge).
    pub host_port: u16,
    /// Address of the host; None = all.
    pub host_ip: Option<std::net::IpAddr>,
}

/// Transport of a port mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Which namespaces a pod has (CRI NamespaceOption, of the sandbox).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodNamespaces {
    /// The host's network.
    pub host_network: bool,
    /// The host's IPC.
    pub host_ipc: bool,
    /// PID namespace of the containers, unless they say otherwise.
    pub pid: PodPid,
    /// A user namespace for the whole pod.
    pub user: Option<UserNamespace>,
}

/// The sandbox's PID mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPid {
    /// Each container has its own.
    #[default]
    Container,
    /// One for the pod.
    Pod,
    /// The host's.
    Node,
}

/// Id mappings of a pod's user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

impl UserNamespace {
    /// The host's numbers of a user and a group inside; None where the namespace does not have them.
    pub fn on_host(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((on_host(&self.uids, uid)?, on_host(&self.gids, gid)?))
    }

    /// Whether the namespace has this user.
    pub fn has_user(&self, uid: u32) -> bool {
        on_host(&self.uids, uid).is_some()
    }

    /// Whether the namespace has this group.
    pub fn has_group(&self, gid: u32) -> bool {
        on_host(&self.gids, gid).is_some()
    }
}

fn on_host(mappings: &[IdMapping], inside: u32) -> Option<u32> {
    mappings.iter().find_map(|range| {
        let offset = inside.checked_sub(range.container_id).filter(|offset| *offset < range.length)?;
        range.host_id.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_inside_are_found_on_the_host() {
        let range = |container_id, host_id, length| IdMapping { container_id, host_id, length };
        let user = UserNamespace { uids: vec![range(0, 1000, 10)], gids: vec![range(0, 5000, 2)] };
        assert_eq!(user.on_host(9, 1), Some((1009, 5001)));
        assert_eq!((user.on_host(10, 1), user.on_host(9, 2)), (None, None));
        assert!(user.has_user(9) && !user.has_user(10) && user.has_group(1) && !user.has_group(2));
    }
}
