//! The kubelet, as nodes have it, but with shorter periods and limits that a test can reach.

use std::process::Command;

use anyhow::Result;
use berth_e2e::node::Node;
use serde_json::{Map, Value, json};

use crate::control_plane::program;
use crate::directory::Directory;
use crate::isolation::NODE;
use crate::machine::ADDRESS;

/// The kubelet sets flags of the whole kernel. Here it gets files instead, in a mount namespace of its own (over the
/// node's /proc they would keep pods from mounting theirs in user namespaces), where volumes still propagate.
const SPARE_THE_KERNEL: &str = r#"
mount --make-private /proc
for flag in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    cat "/proc/sys/$flag" >"$0/${flag##*/}"
    mount --bind "$0/${flag##*/}" "/proc/sys/$flag"
done
exec "$@"
"#;

/// Writes its configuration: its command. `gates` are feature gates as its flag has them: `Name=true,...`.
pub fn command(directory: &Directory, node: &Node, gates: &str) -> Result<Command> {
    let config = configuration(directory, node, gates);
    std::fs::write(directory.kubelet_config(), serde_json::to_vec_pretty(&config)?)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "unchanged", "sh", "-ec", SPARE_THE_KERNEL]);
    command.arg(directory.path()).arg(program("kubelet")?.get_program());
    command.arg("--config").arg(directory.kubelet_config());
    command.arg("--root-dir").arg(directory.kubelet_root());
    command.arg("--kubeconfig").arg(directory.kubeconfig("kubelet"));
    command.arg("--hostname-override").arg(NODE).arg("--node-ip").arg(ADDRESS).arg("--v=2");
    Ok(command)
}

fn configuration(directory: &Directory, node: &Node, gates: &str) -> Value {
    let gates: Map<String, Value> = gates
        .split(',')
        .filter_map(|gate| gate.split_once('='))
        .map(|(name, value)| (name.to_owned(), Value::Bool(value == "true")))
        .collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "featureGates": gates,
        "containerRuntimeEndpoint": format!("unix://{}", node.socket().display()),
        "authentication": { "x509": { "clientCAFile": directory.certificate("ca") } },
        "tlsCertFile": directory.certificate("kubelet-server"),
        "tlsPrivateKeyFile": directory.key("kubelet-server"),
        "staticPodPath": directory.static_pods(),
        "volumePluginDir": directory.kubelet_root().join("volume-plugins"),
        "resolvConf": directory.resolv_conf(),
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        // A machine that has cgroup v1 shall tell what it can.
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": node.cgroup_parent().driver().name(),
        "cgroupRoot": node.cgroup_parent().path(),
        // The packet filter's hint chains are for a kube-proxy.
        "makeIPTablesUtilChains": false,
        "syncFrequency": "10s",
        "fileCheckFrequency": "1s",
        "volumeStatsAggPeriod": "10s",
        "maxPods": 110,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "containerLogMaxSize": "256Ki",
        "containerLogMaxFiles": 3,
        "containerLogMonitorInterval": "3s",
        // Of the node's own disk; its share of a busy machine would evict pods at random.
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi" },
        "evictionPressureTransitionPeriod": "10s",
        "imageMinimumGCAge": "1s",
        "imageGCHighThresholdPercent": 85,
        "imageGCLowThresholdPercent": 80,
        "crashLoopBackOff": { "maxContainerRestartPeriod": "20s" },
    })
}
