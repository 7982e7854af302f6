//! As many pods as a node takes, and what is left of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use berth_e2e::cgroup::{Driver, Parent};
use berth_e2e_kubernetes::images::PAUSE;
use berth_e2e_kubernetes::scenario::{Scenario, disturbance};

const PODS: usize = 110;

/// What of pods is on the node outside the runtime's own files: a line each.
fn belongings(s: &Scenario) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let parent = std::fs::read_to_string(s.directory().cgroup())?;
    for cgroup in Parent::new(Driver::from_env()?, parent.trim()).below() {
        found.insert(format!("cgroup {}", cgroup.display()));
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    for point in table.lines().filter_map(|line| line.split(' ').nth(4)) {
        found.insert(format!("mount {point}"));
    }
    // /sys shows the machine's own.
    let links = Command::new("ip").args(["-o", "link"]).output().context("run ip")?;
    for name in String::from_utf8_lossy(&links.stdout).lines().filter_map(|line| line.split(' ').nth(1)) {
        found.insert(format!("link {name}"));
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let program = std::fs::read_link(entry.path().join("exe"));
        let name =
            program.ok().and_then(|program| program.file_name().map(|name| name.display().to_string()));
        if let Some(name) = name.filter(|name| name.contains("shim") || name == "pause") {
            found.insert(format!("process {} {name}", entry.file_name().display()));
        }
    }
    for directory in [s.directory().kubelet_root().join("pods"), s.directory().var_log().join("pods")] {
        found.extend(entries(&directory));
    }
    Ok(found)
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| format!("file {}", entry.path().display())).collect()
}

#[test]
fn as_many_pods_as_the_node_takes_run_and_leave_nothing() -> Result<()> {
    disturbance("full", |s| {
        // The first pod brings what stays, as the bridge.
        s.run("first", PAUSE, &["/pause"])?;
        s.wait("pod/first", "condition=Ready")?;
        s.kubectl(&["delete", "pod", "first"])?;
        let before = belongings(s)?;
        s.apply(&format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: crowd }}
spec:
  replicas: {PODS}
  selector: {{ matchLabels: {{ app: crowd }} }}
  template:
    metadata: {{ labels: {{ app: crowd }} }}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers: [ {{ name: pause, image: {PAUSE} }} ]
"
        ))?;
        s.kubectl(&["rollout", "status", "deployment/crowd", "--timeout=600s"])?;
        assert_eq!(running(s)?, PODS);
        assert!(belongings(s)?.len() >= before.len() + 4 * PODS, "the census does not see pods");
        // No room for one more, which has to wait until one goes.
        s.run("late", PAUSE, &["/pause"])?;
        let message = s.event("late", "FailedScheduling")?;
        assert!(message.contains("Too many pods"), "{message}");
        s.kubectl(&["scale", "deployment/crowd", &format!("--replicas={}", PODS - 1)])?;
        s.wait("pod/late", "condition=Ready")?;
        s.kubectl(&["delete", "pod", "late"])?;
        s.kubectl(&["delete", "deployment", "crowd", "--cascade=foreground", "--timeout=600s"])?;
        let left = || Ok(belongings(s)?.difference(&before).cloned().collect::<Vec<_>>());
        s.until(left, Vec::is_empty).map(drop)
    })
}

fn running(s: &Scenario) -> Result<usize> {
    let running = ["get", "pods", "--field-selector=status.phase=Running", "-o", "name"];
    Ok(s.kubectl(&running)?.lines().count())
}
