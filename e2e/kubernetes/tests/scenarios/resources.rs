//! What a container gets of the node: limits in its cgroup, changed while it runs, and what comes of exceeding them.

use anyhow::{Context, Result};
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::scenario;
use serde_json::{Value, json};

/// Prints, as the container's own cgroup has them on either version: bytes of memory; period and quota of the CPU;
/// its weight.
const LIMITS: &str = "cd /sys/fs/cgroup; if test -e cgroup.controllers; then cat memory.max cpu.max cpu.weight; \
    else cat memory/memory.limit_in_bytes; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); \
    cat cpu/cpu.shares; fi";

fn resources(requests: Value, limits: Value) -> Value {
    json!({ "resources": { "requests": requests, "limits": limits } })
}

#[test]
fn limits_are_in_the_cgroup_and_the_class_in_the_status() -> Result<()> {
    scenario("limits", |s| {
        let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let some = json!({ "cpu": "250m", "memory": "64Mi" });
        // Shares of the CPU, which version 2 counts otherwise.
        let weight = |shares: &'static str, weight: &'static str| if v2 { weight } else { shares };
        for (name, requests, limits, class, expected) in [
            (
                "guaranteed",
                some.clone(),
                some.clone(),
                "Guaranteed",
                ["67108864", "25000 100000", weight("256", "35")],
            ),
            (
                "burstable",
                json!({ "cpu": "100m", "memory": "32Mi" }),
                json!({ "memory": "128Mi", "cpu": "1" }),
                "Burstable",
                ["134217728", "100000 100000", weight("102", "17")],
            ),
        ] {
            let main = with(shell(LIMITS), resources(requests, limits));
            let said = s.said(name, alone(main))?;
            assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{name}");
            assert_eq!(s.field(&format!("pod/{name}"), "{.status.qosClass}")?, class);
        }
        let said = s.said("free", alone(shell(LIMITS)))?;
        let lines: Vec<_> = said.lines().collect();
        // Version 1 has no word for no limit, but a number that nobody reaches.
        let memory = lines.first().context("no limits")?;
        assert!(*memory == "max" || memory.parse::<u64>()? > 1 << 60, "{said}");
        assert_eq!(lines.last(), Some(&weight("2", "1")), "{said}");
        assert_eq!(s.field("pod/free", "{.status.qosClass}")?, "BestEffort");
        Ok(())
    })
}

#[test]
fn a_running_container_is_resized_without_a_restart() -> Result<()> {
    scenario("resize", |s| {
        let main = with(
            sleeper(),
            resources(json!({ "cpu": "50m", "memory": "32Mi" }), json!({ "cpu": "200m", "memory": "64Mi" })),
        );
        s.start("grows", alone(main))?;
        let id = s.field("pod/grows", "{.status.containerStatuses[0].containerID}")?;
        let resize = |limits: Value| {
            let main = with(json!({ "name": "main" }), resources(json!({}), limits));
            let patch = json!({ "spec": { "containers": [main] } }).to_string();
            s.kubectl(&["patch", "pod", "grows", "--subresource=resize", "--patch", &patch])
        };
        for (memory, cpu, bytes, quota) in
            [("128Mi", "500m", "134217728", "50000 100000"), ("48Mi", "100m", "50331648", "10000 100000")]
        {
            resize(json!({ "cpu": cpu, "memory": memory }))?;
            let limits = "{.status.containerStatuses[0].resources.limits.memory}";
            s.until(|| s.field("pod/grows", limits), |limit| limit == memory)?;
            s.until(|| s.shell("grows", LIMITS), |said| said.starts_with(&format!("{bytes}\n{quota}")))?;
        }
        let status = s.field(
            "pod/grows",
            "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}",
        )?;
        assert_eq!(status, format!("{id} 0"));
        Ok(())
    })
}

#[test]
fn a_container_that_wants_to_is_restarted_by_a_resize() -> Result<()> {
    scenario("resize-restart", |s| {
        let policy =
            json!({ "resizePolicy": [{ "resourceName": "memory", "restartPolicy": "RestartContainer" }] });
        let main = with(with(sleeper(), policy), resources(json!({}), json!({ "memory": "32Mi" })));
        s.start("restarts", with(alone(main), json!({ "restartPolicy": "Always" })))?;
        let more = r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"64Mi"},"requests":{"memory":"64Mi"}}}]}}"#;
        s.kubectl(&["patch", "pod", "restarts", "--subresource=resize", "--patch", more])?;
        s.until(
            || s.field("pod/restarts", "{.status.containerStatuses[0].restartCount}"),
            |count| count == "1",
        )?;
        s.until(|| s.shell("restarts", LIMITS), |said| said.starts_with("67108864\n")).map(drop)
    })
}

#[test]
fn who_writes_more_than_its_limit_is_evicted() -> Result<()> {
    scenario("ephemeral", |s| {
        let write =
            |path: &str| format!("dd if=/dev/zero of={path}/big bs=1M count=40 2>/dev/null; sleep 100000");
        let limit = json!({ "ephemeral-storage": "20Mi" });
        let root = alone(with(shell(&write("/var")), resources(limit.clone(), limit)));
        s.create("root", root)?;
        let mounts = json!({ "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] });
        let volumes = json!({ "volumes": [{ "name": "scratch", "emptyDir": { "sizeLimit": "20Mi" } }] });
        s.create("volume", with(alone(with(shell(&write("/scratch")), mounts)), volumes))?;
        let log = "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123; done";
        let limit = json!({ "ephemeral-storage": "100Ki" });
        s.create("logger", alone(with(shell(log), resources(limit.clone(), limit))))?;
        for (name, words) in [
            ("root", "ephemeral local storage usage exceeds the total limit of containers 20Mi"),
            ("volume", "EmptyDir volume \"scratch\" exceeds the limit \"20Mi\""),
            ("logger", "ephemeral local storage usage exceeds the total limit of containers 100Ki"),
        ] {
            let pod = format!("pod/{name}");
            s.until(|| s.field(&pod, "{.status.reason}"), |reason| reason == "Evicted")?;
            let message = s.field(&pod, "{.status.message}")?;
            assert!(message.contains(words), "{name}: {message}");
            assert_eq!(s.field(&pod, "{.status.phase}")?, "Failed");
        }
        Ok(())
    })
}
