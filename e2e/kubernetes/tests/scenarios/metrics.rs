//! What the kubelet tells of pods that run, from CRI or from cgroups: what `kubectl top` and dashboards are made of.

use anyhow::{Context, Result};
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::scenario::{Scenario, scenario};
use serde_json::Value;

fn node(s: &Scenario, path: &str) -> Result<String> {
    s.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy/{path}")])
}

fn busy(s: &Scenario) -> Result<()> {
    let script = "head -c 20000000 /dev/zero > /dev/shm/held; head -c 3000000 /dev/zero > /written; while :; do :; done";
    s.run("busy", BUSYBOX, &["sh", "-c", script])?;
    s.wait("pod/busy", "condition=Ready").map(drop)
}

#[test]
fn the_summary_shows_what_a_pod_uses() -> Result<()> {
    scenario("summary", |s| {
        busy(s)?;
        let look = || -> Result<(u64, u64, u64)> {
            let summary: Value = serde_json::from_str(&node(s, "stats/summary")?)?;
            let pods = summary["pods"].as_array().context("no pods")?;
            let ours = |pod: &&Value| pod["podRef"]["namespace"] == s.namespace();
            let pod = pods.iter().find(ours).context("not our pod")?;
            let container = &pod["containers"][0];
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            Ok((
                number(&container["cpu"]["usageNanoCores"]),
                number(&pod["memory"]["workingSetBytes"]),
                number(&container["rootfs"]["usedBytes"]),
            ))
        };
        s.until(look, |(cores, memory, disk)| {
            *cores > 20_000_000 && *memory > 20_000_000 && *disk > 3_000_000
        })
        .map(drop)
    })
}

#[test]
fn the_scraped_metrics_name_the_container() -> Result<()> {
    scenario("scrape", |s| {
        busy(s)?;
        let label = format!(r#"namespace="{}""#, s.namespace());
        let mut pages = vec!["metrics/resource"];
        match s.gate("PodAndContainerStatsFromCRI")? {
            true => pages.push("metrics/cadvisor"),
            // cAdvisor asks containerd's and CRI-O's sockets for names, and knows no others.
            false => {
                println!("metrics/cadvisor left out: only with K8S_GATES=PodAndContainerStatsFromCRI=true")
            }
        }
        let names = ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"];
        for (path, name) in pages.iter().flat_map(|path| names.map(|name| (*path, name))) {
            let line = |text: &String| {
                let ours = |line: &str| line.starts_with(name) && line.contains(&label);
                text.lines().any(|line| ours(line) && line.contains(r#"container="busy""#))
            };
            s.until(|| node(s, path), line).with_context(|| format!("{name} of {path}"))?;
        }
        Ok(())
    })
}
