//! The verbose info of a pod sandbox.

use serde_json::{Value, json};

use super::{Info, RUNTIME, SNAPSHOTTER, info, request};
use crate::containers::Sandbox;
use crate::drivers::Drivers;
use crate::pods::Pod;
use crate::pods::spec::PodPid;

/// A pod's process, namespaces, cgroup, network and request. There is no pause container, so image and snapshot are empty,
/// and `pid` is the shim's, which lives in the pod's namespaces.
pub(in crate::api::cri) fn pod(drivers: &Drivers, pod: &Pod) -> Info {
    let sandbox = &pod.sandbox;
    let shim = sandbox.shim().map(|shim| shim.pid());
    let netns = drivers.layout.network_namespace(&sandbox.id);
    let network = pod.network();
    let result = network.as_ref().map(|network| network.result(&netns));
    info(&json!({
        "pid": shim.unwrap_or(0),
        "processStatus": if shim.is_some() { "running" } else { "deleted" },
        "netNamespaceClosed": network.is_none() && !sandbox.spec.namespaces.host_network,
        "image": "",
        "snapshotKey": "",
        "snapshotter": SNAPSHOTTER,
        "runtimeHandler": sandbox.spec.runtime_handler,
        "runtimeType": RUNTIME,
        "cgroup": sandbox.cgroup.path(),
        "netns": netns,
        "network": network,
        "cniResult": result.as_ref().map(interfaces),
        "networkResult": result,
        "config": request::pod(&sandbox.spec),
        "limits": pod.limits(),
        "runtimeSpec": runtime_spec(drivers, pod, shim),
    }))
}

/// What an OCI runtime spec would say of the pod: where its cgroup and its namespaces are.
fn runtime_spec(drivers: &Drivers, pod: &Pod, shim: Option<i32>) -> Value {
    let sandbox = &pod.sandbox;
    json!({
        "ociVersion": "1.2.0",
        "hostname": sandbox.spec.hostname,
        "annotations": sandbox.spec.annotations,
        "linux": {
            "cgroupsPath": sandbox.cgroup.path(),
            "namespaces": shim.map_or_else(Vec::new, |shim| namespaces(drivers, sandbox, shim)),
            "sysctl": sandbox.spec.sysctls,
        },
    })
}

/// The pod's own namespaces, by paths that nsenter(1) takes.
pub(super) fn namespaces(drivers: &Drivers, sandbox: &Sandbox, shim: i32) -> Vec<Value> {
    let spec = &sandbox.spec.namespaces;
    let of_shim = |name: &str| format!("/proc/{shim}/ns/{name}");
    let mut found = Vec::new();
    if !spec.host_network {
        let path = drivers.layout.network_namespace(&sandbox.id);
        found.push(json!({ "type": "network", "path": path }));
        found.push(json!({ "type": "uts", "path": of_shim("uts") }));
    }
    if !spec.host_ipc {
        found.push(json!({ "type": "ipc", "path": of_shim("ipc") }));
    }
    if spec.pid == PodPid::Pod {
        found.push(json!({ "type": "pid", "path": of_shim("pid_for_children") }));
    }
    found
}

/// A CNI result in the shape that containerd tells of it.
fn interfaces(result: &Value) -> Value {
    let list = |name: &str| result[name].as_array().cloned().unwrap_or_default();
    let names = list("interfaces");
    let mut found = serde_json::Map::new();
    for (index, interface) in names.iter().enumerate() {
        let here = |ip: &&Value| ip["interface"].as_u64() == u64::try_from(index).ok();
        let ips = list("ips");
        let ips: Vec<_> = ips.iter().filter(here).map(address).collect();
        let told = json!({ "IPConfigs": ips, "Mac": interface["mac"], "Sandbox": interface["sandbox"] });
        found.insert(interface["name"].as_str().unwrap_or_default().to_string(), told);
    }
    json!({ "Interfaces": found, "DNS": [result["dns"]], "Routes": list("routes") })
}

fn address(ip: &Value) -> Value {
    let address = ip["address"].as_str().unwrap_or_default();
    json!({ "IP": address.split('/').next(), "Gateway": ip["gateway"] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cni_result_is_told_as_containerd_does() {
        let result = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "cni0", "mac": "aa" }, { "name": "eth0", "mac": "bb", "sandbox": "/n" }],
            "ips": [{ "address": "10.1.0.7/24", "gateway": "10.1.0.1", "interface": 1 }],
            "routes": [{ "dst": "0.0.0.0/0" }],
        });
        let told = interfaces(&result);
        let eth0 = &told["Interfaces"]["eth0"];
        assert_eq!(eth0["IPConfigs"], json!([{ "IP": "10.1.0.7", "Gateway": "10.1.0.1" }]));
        assert_eq!((&eth0["Mac"], &eth0["Sandbox"]), (&json!("bb"), &json!("/n")));
        assert_eq!(told["Interfaces"]["cni0"]["IPConfigs"], json!([]));
        assert_eq!(told["Routes"], json!([{ "dst": "0.0.0.0/0" }]));
    }
}
