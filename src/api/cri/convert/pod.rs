//! Pod sandboxes: PodSandboxConfig in, PodSandbox and PodSandboxStatus out.

use std::net::IpAddr;

use berth_proto::cri::v1;

use super::{Invalid, absolute, name, required, resources, security};
use crate::pods::spec::{Dns, PodMetadata, PodNamespaces, PodPid, PodSpec, PortMapping, Protocol};
use crate::pods::{Filter, Pod, PodSnapshot};

pub(in crate::api::cri) fn spec(
    config: Option<v1::PodSandboxConfig>,
    handler: String,
) -> Result<PodSpec, Invalid> {
    let config = required(config, "config")?;
    let metadata = metadata(required(config.metadata, "config.metadata")?)?;
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    if !config.log_directory.is_empty() {
        absolute(&config.log_directory, "config.log_directory")?;
    }
    if config.hostname.len() > 64 {
        return Err(Invalid::new(
            "config.hostname",
            format!("{:?} is longer than 64 bytes", config.hostname),
        ));
    }
    let seccomp = security::seccomp(security.seccomp, &security_path("seccomp"))?;
    let optional = |linux: Option<v1::LinuxContainerResources>, field: &str| {
        linux.map(|linux| resources::from_cri(linux, field)).transpose()
    };
    Ok(PodSpec {
        namespaces: namespaces(security.namespace_options.unwrap_or_default())?,
        privileged: security.privileged,
        seccomp,
        selinux: security::selinux(security.selinux_options),
        metadata,
        hostname: config.hostname,
        log_directory: config.log_directory,
        dns: config.dns_config.map(|dns| Dns {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        ports: ports(config.port_mappings)?,
        labels: config.labels,
        annotations: config.annotations,
        cgroup_parent: linux.cgroup_parent,
        sysctls: linux.sysctls,
        runtime_handler: handler,
        overhead: optional(linux.overhead, "config.linux.overhead")?,
        resources: optional(linux.resources, "config.linux.resources")?,
    })
}

fn security_path(field: &str) -> String {
    format!("config.linux.security_context.{field}")
}

fn metadata(metadata: v1::PodSandboxMetadata) -> Result<PodMetadata, Invalid> {
    Ok(PodMetadata {
        name: name(metadata.name, "config.metadata.name")?,
        namespace: name(metadata.namespace, "config.metadata.namespace")?,
        uid: name(metadata.uid, "config.metadata.uid")?,
        attempt: metadata.attempt,
    })
}

fn ports(mappings: Vec<v1::PortMapping>) -> Result<Vec<PortMapping>, Invalid> {
    // A host port of 0 means none: only the container's side is declared.
    mappings.into_iter().enumerate().filter(|(_, mapping)| mapping.host_port != 0).map(port).collect()
}

fn port((index, mapping): (usize, v1::PortMapping)) -> Result<PortMapping, Invalid> {
    let field = |name: &str| format!("config.port_mappings[{index}].{name}");
    let number = |value: i32, name: &str| match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Invalid::new(field(name), format!("{value} is not a port, 1..=65535"))),
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        ip => Some(
            ip.parse().map_err(|_| Invalid::new(field("host_ip"), format!("{ip:?} is not an address")))?,
        ),
    };
    let protocol = match v1::Protocol::try_from(mapping.protocol) {
        Ok(v1::Protocol::Tcp) => Protocol::Tcp,
        Ok(v1::Protocol::Udp) => Protocol::Udp,
        Ok(v1::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            return Err(Invalid::new(field("protocol"), format!("{} is unknown", mapping.protocol)));
        }
    };
    Ok(PortMapping {
        protocol,
        container_port: number(mapping.container_port, "container_port")?,
        host_port: number(mapping.host_port, "host_port")?,
        // The unspecified address means all.
        host_ip: host_ip.filter(|ip: &std::net::IpAddr| !ip.is_unspecified()),
    })
}

fn namespaces(options: v1::NamespaceOption) -> Result<PodNamespaces, Invalid> {
    use v1::NamespaceMode as Mode;
    let host_or_pod = |value: i32, field: &str| match Mode::try_from(value) {
        Ok(Mode::Pod) => Ok(false),
        Ok(Mode::Node) => Ok(true),
        _ => Err(Invalid::new(security_path(field), format!("mode {value} is not POD and not NODE"))),
    };
    let pid = match Mode::try_from(options.pid) {
        Ok(Mode::Pod) => PodPid::Pod,
        Ok(Mode::Container) => PodPid::Container,
        Ok(Mode::Node) => PodPid::Node,
        _ => {
            return Err(Invalid::new(
                security_path("namespace_options.pid"),
                "TARGET is for containers only",
            ));
        }
    };
    let host_ipc = host_or_pod(options.ipc, "namespace_options.ipc")?;
    let user = security::user_namespace(options.userns_options, &security_path(USER_NAMESPACE))?;
    if user.is_some() && (pid == PodPid::Node || host_ipc) {
        // The kernel lets nobody but their owner mount the file systems that show them.
        let problem =
            "a pod with a user namespace can have the node's network, but not its PIDs and not its IPC";
        return Err(Invalid::new(security_path(USER_NAMESPACE), problem));
    }
    Ok(PodNamespaces {
        host_network: host_or_pod(options.network, "namespace_options.network")?,
        host_ipc,
        pid,
        user,
    })
}

const USER_NAMESPACE: &str = "namespace_options.userns_options";

pub(in crate::api::cri) fn filter(filter: Option<v1::PodSandboxFilter>) -> Filter {
    let filter = filter.unwrap_or_default();
    let ready = |state: v1::PodSandboxStateValue| state.state == v1::PodSandboxState::SandboxReady as i32;
    Filter { id: filter.id, ready: filter.state.map(ready), labels: filter.label_selector }
}

pub(super) fn metadata_of(pod: &Pod) -> v1::PodSandboxMetadata {
    let metadata = &pod.sandbox.spec.metadata;
    v1::PodSandboxMetadata {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
    }
}

fn state_of(ready: bool) -> i32 {
    let state = if ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
    state.into()
}

pub(in crate::api::cri) fn item(pod: &Pod) -> v1::PodSandbox {
    let spec = &pod.sandbox.spec;
    v1::PodSandbox {
        id: pod.id().to_string(),
        metadata: Some(metadata_of(pod)),
        state: state_of(pod.is_ready()),
        created_at: pod.created_at,
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        runtime_handler: spec.runtime_handler.clone(),
    }
}

pub(in crate::api::cri) fn status(snapshot: &PodSnapshot) -> v1::PodSandboxStatus {
    let pod = &snapshot.pod;
    let spec = &pod.sandbox.spec;
    v1::PodSandboxStatus {
        id: pod.id().to_string(),
        metadata: Some(metadata_of(pod)),
        state: state_of(snapshot.ready),
        created_at: pod.created_at,
        network: Some(network(&snapshot.ips)),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: Some(namespace_options(&spec.namespaces)) }),
        }),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        runtime_handler: spec.runtime_handler.clone(),
    }
}

/// Empty for a pod in the host's network: the kubelet knows the node's addresses.
fn network(ips: &[IpAddr]) -> v1::PodSandboxNetworkStatus {
    let mut ips = ips.iter().map(ToString::to_string);
    v1::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
    }
}

fn namespace_options(namespaces: &PodNamespaces) -> v1::NamespaceOption {
    use v1::NamespaceMode as Mode;
    let mode = |host: bool| if host { Mode::Node } else { Mode::Pod };
    let pid = match namespaces.pid {
        PodPid::Pod => Mode::Pod,
        PodPid::Container => Mode::Container,
        PodPid::Node => Mode::Node,
    };
    v1::NamespaceOption {
        network: mode(namespaces.host_network).into(),
        ipc: mode(namespaces.host_ipc).into(),
        pid: pid.into(),
        target_id: String::new(),
        userns_options: namespaces.user.as_ref().map(|user| v1::UserNamespace {
            mode: Mode::Pod.into(),
            uids: security::id_mappings_to_cri(&user.uids),
            gids: security::id_mappings_to_cri(&user.gids),
        }),
    }
}
