//! UpdateContainerResources and UpdatePodSandboxResources: limits change together or not at all, and are not forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::client::{Reply, expect_refusal};
use berth_e2e::crictl::Crictl;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use tonic::Code;

async fn update(world: &World, id: &str, limits: &LinuxContainerResources) -> Reply<()> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(limits.clone()),
        annotations: BTreeMap::from([("why".into(), "test".into())]),
        ..Default::default()
    };
    world.client.runtime.clone().update_container_resources(request).await.map(drop)
}

async fn limits(world: &World, id: &str) -> Result<LinuxContainerResources> {
    let status = world.client.status(id).await?;
    status.resources.and_then(|resources| resources.linux).context("no limits in the status")
}

async fn info(world: &World, id: &str) -> Result<serde_json::Value> {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let reply = world.client.runtime.clone().container_status(request).await?.into_inner();
    Ok(serde_json::from_str(&reply.info["info"])?)
}

/// A file of the container's cgroup, by its names on version 1 (with the controller) and 2.
async fn cgroup_file(world: &World, id: &str, v1: &str, v2: &str) -> Result<String> {
    let cgroup = info(world, id).await?["cgroup"].as_str().context("no cgroup")?.to_owned();
    let (controller, file) = v1.split_once('/').context("controller/file")?;
    let v1 = format!("/sys/fs/cgroup/{controller}{cgroup}/{file}");
    let text = std::fs::read_to_string(&v1)
        .or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/{v2}")))
        .with_context(|| format!("neither {v1} nor {v2}"))?;
    Ok(text.trim().to_owned())
}

async fn memory(world: &World, id: &str) -> Result<String> {
    cgroup_file(world, id, "memory/memory.limit_in_bytes", "memory.max").await
}

const MIB: i64 = 1 << 20;

fn first() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 * MIB,
        oom_score_adj: 500,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_running_containers_limits_change_and_what_is_not_named_stays() -> Result<()> {
    let mut world = World::start().await?;
    let mut container = world.sleeper("main");
    container.linux.as_mut().unwrap().resources = Some(first());
    let (_, id) = world.run(&world.pod("running"), &container).await?;
    let change =
        LinuxContainerResources { cpu_shares: 1024, memory_limit_in_bytes: 96 * MIB, ..Default::default() };
    for _ in 0..2 {
        update(&world, &id, &change).await?;
    }
    assert_eq!(memory(&world, &id).await?, (96 * MIB).to_string());
    let quota = cgroup_file(&world, &id, "cpu/cpu.cfs_quota_us", "cpu.max").await?;
    assert!(quota.starts_with("50000"), "{quota}");
    let expected = LinuxContainerResources { cpu_shares: 1024, memory_limit_in_bytes: 96 * MIB, ..first() };
    let told = limits(&world, &id).await?;
    assert_eq!((told.cpu_shares, told.cpu_quota), (expected.cpu_shares, expected.cpu_quota));
    assert_eq!(told.memory_limit_in_bytes, expected.memory_limit_in_bytes);
    if world.node.runtime() == Runtime::Berth {
        assert_eq!(told, expected);
        let info = info(&world, &id).await?;
        assert_eq!(info["updateAnnotations"]["why"], "test");
        assert_eq!(info["runtimeSpec"]["linux"]["resources"]["memory"]["limit"], 96 * MIB);
    }
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert_eq!(limits(&world, &id).await?, told, "after a crash");
    world.client.exec(&id, &["true"], 10).await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_limit_leaves_all_others_as_they_were() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: runc leaves half of an update in force");
        return Ok(());
    }
    let mut container = world.sleeper("main");
    container.linux.as_mut().unwrap().resources = Some(first());
    let (_, id) = world.run(&world.pod("refused"), &container).await?;
    let files = async |world: &World| -> Result<Vec<String>> {
        Ok(vec![
            memory(world, &id).await?,
            cgroup_file(world, &id, "cpu/cpu.shares", "cpu.weight").await?,
            cgroup_file(world, &id, "cpu/cpu.cfs_quota_us", "cpu.max").await?,
            cgroup_file(world, &id, "cpuset/cpuset.cpus", "cpuset.cpus").await?,
        ])
    };
    let before = (files(&world).await?, limits(&world, &id).await?);
    let good = LinuxContainerResources {
        cpu_shares: 2048,
        cpu_quota: 20_000,
        memory_limit_in_bytes: 128 * MIB,
        ..Default::default()
    };
    let bad = [
        (LinuxContainerResources { cpuset_cpus: "4000".into(), ..good.clone() }, "cpuset cpus"),
        (LinuxContainerResources { cpuset_mems: "900".into(), ..good.clone() }, "cpuset mems"),
        (LinuxContainerResources { cpu_shares: 1, ..good.clone() }, "cpu shares"),
        (LinuxContainerResources { memory_limit_in_bytes: 4096, ..good.clone() }, "memory limit"),
        (LinuxContainerResources { cpu_period: -1, ..good.clone() }, "cpu_period"),
    ];
    for (change, word) in bad {
        expect_refusal(update(&world, &id, &change).await, &[Code::InvalidArgument], &[word]);
        assert_eq!((files(&world).await?, limits(&world, &id).await?), before, "{word}");
    }
    update(&world, &id, &good).await?;
    assert_ne!(files(&world).await?, before.0);
    Ok(())
}

#[tokio::test]
async fn a_created_container_starts_with_its_new_limits() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("created");
    let pod = world.client.run_pod(&config).await?;
    let id = world.client.create(&pod, &world.sleeper("main"), &config).await?;
    update(&world, &id, &first()).await?;
    world.client.start(&id).await?;
    assert_eq!(memory(&world, &id).await?, (64 * MIB).to_string());
    if world.node.runtime() == Runtime::Berth {
        assert_eq!(limits(&world, &id).await?, first());
        assert_eq!(world.client.shell(&id, "cat /proc/1/oom_score_adj").await?.trim(), "500");
    }
    Ok(())
}

#[tokio::test]
async fn crictl_updates_too() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("crictl"), &world.sleeper("main")).await?;
    let crictl = Crictl::new(&world.node)?;
    crictl.run(&["update", "--memory", &(80 * MIB).to_string(), "--cpu-share", "300", &id])?;
    assert_eq!(memory(&world, &id).await?, (80 * MIB).to_string());
    assert_eq!(limits(&world, &id).await?.cpu_shares, 300);
    Ok(())
}

#[tokio::test]
async fn exited_and_unknown_containers_are_refused() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("exited"), &world.container("main", "exit 0")).await?;
    world.client.wait_exited(&id, Duration::from_secs(10)).await?;
    if world.node.runtime() == Runtime::Berth {
        expect_refusal(update(&world, &id, &first()).await, &[Code::FailedPrecondition], &["exited"]);
    }
    expect_refusal(update(&world, "0123456789abcdef", &first()).await, &[Code::NotFound], &[]);
    Ok(())
}

#[tokio::test]
async fn a_pods_limits_are_noted_and_survive_a_crash() -> Result<()> {
    let mut world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd does not keep them");
        return Ok(());
    }
    let config = world.pod("noted");
    let pod = world.client.run_pod(&config).await?;
    let request = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead: None,
        resources: Some(first()),
    };
    world.client.runtime.clone().update_pod_sandbox_resources(request.clone()).await?;
    for _ in 0..2 {
        let status = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let reply = world.client.runtime.clone().pod_sandbox_status(status).await?.into_inner();
        let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
        assert_eq!(info["limits"]["resources"]["memory_limit"], 64 * MIB);
        assert_eq!(world.client.run_pod(&config).await?, pod, "the request is still the same one");
        world.node.kill()?;
        world.node.launch().await?;
        world.client = world.node.client().await?;
    }
    world.client.stop_pod(&pod).await?;
    let refused = world.client.runtime.clone().update_pod_sandbox_resources(request).await;
    expect_refusal(refused, &[Code::FailedPrecondition], &["not ready"]);
    Ok(())
}
