//! What was asked for, in the names of CRI's own messages: PodSandboxConfig and ContainerConfig as crictl and other tools
//! know them. What the conversion has dropped or filled in is not told as it came.

use serde_json::{Map, Value, json};

use crate::containers::spec::{
    AppArmor, ContainerSpec, IdMapping, Mount, PidMode, Propagation, Resources, RunAs, Seccomp, Security,
};
use crate::pods::spec::{PodPid, PodSpec, PortMapping};

/// Protobuf's JSON leaves out what is empty; tools rely on nothing else.
fn compact(value: Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, compact(value)));
            Value::Object(kept.filter(|(_, value)| !empty(value)).collect::<Map<_, _>>())
        }
        other => other,
    }
}

pub(super) fn pod(spec: &PodSpec) -> Value {
    let namespaces = &spec.namespaces;
    let mode = |host: bool| if host { "NODE" } else { "POD" };
    let pid = match namespaces.pid {
        PodPid::Pod => "POD",
        PodPid::Container => "CONTAINER",
        PodPid::Node => "NODE",
    };
    let user = namespaces.user.as_ref();
    let userns = user.map(|user| json!({ "mode": "POD", "uids": ids(&user.uids), "gids": ids(&user.gids) }));
    compact(json!({
        "metadata": spec.metadata,
        "hostname": spec.hostname,
        "log_directory": spec.log_directory,
        "dns_config": spec.dns,
        "port_mappings": spec.ports.iter().map(port).collect::<Vec<_>>(),
        "labels": spec.labels,
        "annotations": spec.annotations,
        "linux": {
            "cgroup_parent": spec.cgroup_parent,
            "sysctls": spec.sysctls,
            "overhead": spec.overhead.as_ref().map(resources),
            "resources": spec.resources.as_ref().map(resources),
            "security_context": {
                "privileged": spec.privileged,
                "seccomp": seccomp(&spec.seccomp),
                "namespace_options": {
                    "network": mode(namespaces.host_network),
                    "ipc": mode(namespaces.host_ipc),
                    "pid": pid,
                    "userns_options": userns,
                },
            },
        },
    }))
}

pub(super) fn container(spec: &ContainerSpec) -> Value {
    let envs = spec.envs.iter();
    let envs = envs.map(|(key, value)| json!({ "key": key, "value": String::from_utf8_lossy(value) }));
    let devices = spec.devices.iter();
    compact(json!({
        "metadata": spec.metadata,
        "image": { "image": spec.image, "user_specified_image": spec.user_specified_image },
        "command": spec.command,
        "args": spec.args,
        "working_dir": spec.working_dir,
        "envs": envs.collect::<Vec<_>>(),
        "mounts": spec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "devices": devices.collect::<Vec<_>>(),
        "labels": spec.labels,
        "annotations": spec.annotations,
        "log_path": spec.log_path,
        "stdin": spec.stdin,
        "stdin_once": spec.stdin_once,
        "tty": spec.tty,
        "stop_signal": spec.stop_signal,
        "linux": { "resources": resources(&spec.resources), "security_context": security(&spec.security) },
    }))
}

fn port(port: &PortMapping) -> Value {
    json!({
        "protocol": format!("{:?}", port.protocol).to_uppercase(),
        "container_port": port.container_port,
        "host_port": port.host_port,
        "host_ip": port.host_ip,
    })
}

fn mount(mount: &Mount) -> Value {
    let propagation = match mount.propagation {
        Propagation::Private => "PROPAGATION_PRIVATE",
        Propagation::HostToContainer => "PROPAGATION_HOST_TO_CONTAINER",
        Propagation::Bidirectional => "PROPAGATION_BIDIRECTIONAL",
    };
    compact(json!({
        "container_path": mount.container_path,
        "host_path": mount.host_path,
        "image": mount.image.as_ref().map(|volume| json!({ "image": volume.image })),
        "image_sub_path": mount.image.as_ref().and_then(|volume| volume.sub_path.clone()),
        "readonly": mount.readonly,
        "recursive_read_only": mount.recursive_read_only,
        "selinux_relabel": mount.selinux_relabel,
        "propagation": propagation,
        "uidMappings": ids(&mount.uid_mappings),
        "gidMappings": ids(&mount.gid_mappings),
    }))
}

fn ids(mappings: &[IdMapping]) -> Vec<Value> {
    mappings.iter().map(|ids| json!(ids)).collect()
}

fn resources(resources: &Resources) -> Value {
    json!({
        "cpu_period": resources.cpu_period,
        "cpu_quota": resources.cpu_quota,
        "cpu_shares": resources.cpu_shares,
        "memory_limit_in_bytes": resources.memory_limit,
        "memory_swap_limit_in_bytes": resources.memory_swap_limit,
        "oom_score_adj": resources.oom_score_adj,
        "cpuset_cpus": resources.cpuset_cpus,
        "cpuset_mems": resources.cpuset_mems,
        "hugepage_limits": resources.hugepage_limits,
        "unified": resources.unified,
    })
}

fn security(security: &Security) -> Value {
    let (user, name, group) = match &security.run_as {
        RunAs::Image => (None, None, None),
        RunAs::Uid(uid, group) => (Some(uid), None, *group),
        RunAs::Name(name, group) => (None, Some(name), *group),
    };
    let id = |value: u32| json!({ "value": value });
    let (pid, target) = match &security.pid {
        PidMode::Container => ("CONTAINER", None),
        PidMode::Pod => ("POD", None),
        PidMode::Node => ("NODE", None),
        PidMode::Target(container) => ("TARGET", Some(container)),
    };
    json!({
        "privileged": security.privileged,
        "capabilities": {
            "add_capabilities": security.capabilities.add,
            "drop_capabilities": security.capabilities.drop,
            "add_ambient_capabilities": security.capabilities.add_ambient,
        },
        "namespace_options": { "pid": pid, "target_id": target },
        "selinux_options": security.selinux,
        "run_as_user": user.map(|user| id(*user)),
        "run_as_username": name,
        "run_as_group": group.map(id),
        "readonly_rootfs": security.readonly_rootfs,
        "supplemental_groups": security.supplemental_groups,
        "supplemental_groups_policy": format!("{:?}", security.supplemental_groups_policy),
        "no_new_privs": security.no_new_privs,
        "masked_paths": security.masked_paths,
        "readonly_paths": security.readonly_paths,
        "seccomp": seccomp(&security.seccomp),
        "apparmor": match &security.apparmor {
            AppArmor::RuntimeDefault => profile("RuntimeDefault", ""),
            AppArmor::Unconfined => profile("Unconfined", ""),
            AppArmor::Localhost(name) => profile("Localhost", name),
        },
    })
}

fn seccomp(seccomp: &Seccomp) -> Value {
    match seccomp {
        Seccomp::RuntimeDefault => profile("RuntimeDefault", ""),
        Seccomp::Unconfined => profile("Unconfined", ""),
        Seccomp::Localhost(path) => profile("Localhost", &path.to_string_lossy()),
    }
}

fn profile(kind: &str, reference: &str) -> Value {
    json!({ "profile_type": kind, "localhost_ref": reference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_told() {
        let whole = json!({ "a": "", "b": false, "c": { "d": [], "e": null }, "f": { "g": 0, "h": "x" } });
        assert_eq!(compact(whole), json!({ "f": { "g": 0, "h": "x" } }));
    }
}
