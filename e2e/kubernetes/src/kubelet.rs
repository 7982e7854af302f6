//! The kubelet, as nodes have it, but with shorter periods and limits that a test can reach.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use berth_e2e::node::Node;
use berth_e2e::systemd::{self, Kubelet as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use crate::control_plane::program;
use crate::directory::Directory;
use crate::isolation::NODE;
use crate::machine::ADDRESS;

/// What it is called among the cluster's daemons.
pub const NAME: &str = "kubelet";
/// How long it may take to end or to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// The kubelet sets flags of the whole kernel. Here it gets files instead, in a mount namespace of its own (over the
/// node's /proc they would keep pods from mounting theirs in user namespaces), where volumes still propagate.
const SPARE_THE_KERNEL: &str = r#"
mount --make-private /proc
for flag in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    cat "/proc/sys/$flag" >"$0/${flag##*/}"
    mount --bind "$0/${flag##*/}" "/proc/sys/$flag"
done
exec $(cat "$0/kubelet-command")
"#;

/// Writes its configuration, and its command line, which [`Unit`] may change: what runs it. `gates` are feature gates as its flag has them: `Name=true,...`.
pub fn command(directory: &Directory, node: &Node, gates: &str) -> Result<Command> {
    let config = configuration(directory, node, gates);
    std::fs::write(directory.kubelet_config(), serde_json::to_vec_pretty(&config)?)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "unchanged", "sh", "-ec", SPARE_THE_KERNEL]);
    command.arg(directory.path());
    let line = format!(
        "{} --config={} --root-dir={} --kubeconfig={} --hostname-override={NODE} --node-ip={ADDRESS} --v=2",
        program("kubelet")?.get_program().display(),
        directory.kubelet_config().display(),
        directory.kubelet_root().display(),
        directory.kubeconfig("kubelet").display(),
    );
    std::fs::write(directory.kubelet_command(), line)?;
    Ok(command)
}

/// The kubelet as a systemd has it: stopped, and started by another command line. `cluster` goes on to start again one
/// that ends by itself.
pub struct Unit(Directory);

impl Unit {
    /// Writes the unit's file, as a distribution would: the kubelet as it runs now.
    pub fn install(directory: &Directory, file: &Path) -> Result<Self> {
        let line = std::fs::read_to_string(directory.kubelet_command())?;
        std::fs::write(file, format!("[Service]\nExecStart={line}\nRestart=always\n"))?;
        Ok(Self(directory.clone()))
    }

    fn wait(&self, what: &str, done: impl Fn(Option<u32>) -> bool) -> Result<()> {
        let end = Instant::now() + berth_e2e::bound(PATIENCE);
        while !done(self.pid()) {
            ensure!(Instant::now() < end, "the kubelet does not {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl systemd::Kubelet for Unit {
    fn start(&mut self, line: &str) -> Result<()> {
        if self.pid().is_none() {
            std::fs::write(self.0.kubelet_command(), line)?;
            let _ = std::fs::remove_file(self.0.held(NAME));
            self.wait("start", |pid| pid.is_some())?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        std::fs::write(self.0.held(NAME), "")?;
        if let Some(pid) = self.pid() {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)?;
            self.wait("end", |pid| pid.is_none())?;
        }
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.0.pid(NAME)).ok()?.trim().parse().ok()
    }
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
