//! What the kubelet asks of a pod, validated: the domain's own types, stored as they are. No CRI types here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::containers::spec::{IdMapping, Resources, Seccomp};

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

/// A pod's name (CRI PodSandboxMetadata).
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
