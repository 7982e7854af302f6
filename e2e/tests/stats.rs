//! Stats: what containers and pods use, as the kubelet asks for it. Bounds are loose, for the machine is shared.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::client::{Client, Reply, expect_refusal};
use berth_e2e::crictl::Crictl;
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};
use berth_proto::cri::v1::*;
use tonic::Code;

const BUSY: &str = "while :; do :; done";
const MIB: u64 = 1 << 20;

async fn container_stats(client: &Client, id: &str) -> Reply<ContainerStats> {
    let request = ContainerStatsRequest { container_id: id.into() };
    Ok(client.runtime.clone().container_stats(request).await?.into_inner().stats.unwrap_or_default())
}

async fn pod_stats(client: &Client, id: &str) -> Reply<LinuxPodSandboxStats> {
    let request = PodSandboxStatsRequest { pod_sandbox_id: id.into() };
    let stats = client.runtime.clone().pod_sandbox_stats(request).await?.into_inner().stats;
    Ok(stats.unwrap_or_default().linux.unwrap_or_default())
}

/// The ids that ListContainerStats gives.
async fn listed(client: &Client, filter: Option<ContainerStatsFilter>) -> Reply<Vec<String>> {
    let request = ListContainerStatsRequest { filter };
    let stats = client.runtime.clone().list_container_stats(request).await?.into_inner().stats;
    Ok(stats.into_iter().map(|stats| stats.attributes.unwrap_or_default().id).collect())
}

/// The ids that ListPodSandboxStats gives.
async fn listed_pods(client: &Client, filter: Option<PodSandboxStatsFilter>) -> Reply<Vec<String>> {
    let request = ListPodSandboxStatsRequest { filter };
    let stats = client.runtime.clone().list_pod_sandbox_stats(request).await?.into_inner().stats;
    Ok(stats.into_iter().map(|stats| stats.attributes.unwrap_or_default().id).collect())
}

fn value(value: Option<UInt64Value>) -> Result<u64> {
    Ok(value.context("a value is missing")?.value)
}

/// Asks until the answer is as wanted, for twenty seconds (more where the machine is emulated).
async fn until(
    client: &Client,
    id: &str,
    wanted: impl Fn(&ContainerStats) -> bool,
) -> Result<ContainerStats> {
    eventually(Duration::from_secs(20), async || {
        let stats = container_stats(client, id).await?;
        ensure!(wanted(&stats), "not as wanted: {stats:?}");
        Ok(stats)
    })
    .await
}

#[tokio::test]
async fn a_busy_container_uses_a_processor_and_an_idle_one_does_not() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("busy");
    let (pod, busy) = world.run(&config, &world.container("busy", BUSY)).await?;
    let first = container_stats(&world.client, &busy).await?;
    assert!(first.cpu.context("cpu")?.timestamp > 0 && first.memory.context("memory")?.timestamp > 0);
    let idle = world.launch(&pod, &world.sleeper("idle"), &config).await?;
    // What the starts cost is over by then, and not part of the rates.
    tokio::time::sleep(bound(Duration::from_secs(2))).await;
    container_stats(&world.client, &idle).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let cpu = container_stats(&world.client, &busy).await?.cpu.context("cpu")?;
    let rate = value(cpu.usage_nano_cores)?;
    assert!((100_000_000..1_300_000_000).contains(&rate), "{rate} is not about one processor");
    assert!(value(cpu.usage_core_nano_seconds)? >= 300_000_000);
    let rate = value(container_stats(&world.client, &idle).await?.cpu.context("cpu")?.usage_nano_cores)?;
    assert!(rate < 100_000_000, "{rate} is not idle");

    let stats = pod_stats(&world.client, &pod).await?;
    assert!(value(stats.cpu.context("cpu of the pod")?.usage_nano_cores)? > 100_000_000);
    // Two shells, a sleep, and the shim.
    let processes = value(stats.process.context("processes")?.process_count)?;
    assert!((3..=5).contains(&processes), "{processes} processes");
    assert_eq!(stats.containers.len(), 2);
    Ok(())
}

#[tokio::test]
async fn memory_that_a_container_holds_shows_and_counts_against_its_limit() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("memory");
    let script =
        "x=$(dd if=/dev/zero bs=1M count=50 2>/dev/null | tr '\\0' a); touch /held; sleep 1000; : $x";
    let mut spec = world.container("main", script);
    spec.linux.get_or_insert_default().resources =
        Some(LinuxContainerResources { memory_limit_in_bytes: 512 << 20, ..Default::default() });
    let (pod, id) = world.run(&config, &spec).await?;
    let held = |stats: &ContainerStats| {
        stats.memory.as_ref().is_some_and(|memory| memory.rss_bytes.is_some_and(|rss| rss.value >= 50 * MIB))
    };
    let memory = until(&world.client, &id, held).await?.memory.context("memory")?;
    let (working_set, usage) = (value(memory.working_set_bytes)?, value(memory.usage_bytes)?);
    assert!((50 * MIB..=usage).contains(&working_set) && usage < 512 * MIB, "{memory:?}");
    assert_eq!(value(memory.available_bytes)?, 512 * MIB - working_set);
    assert!(value(memory.page_faults)? > 1000 && memory.major_page_faults.is_some(), "{memory:?}");
    let whole = pod_stats(&world.client, &pod).await?.memory.context("memory of the pod")?;
    assert!(value(whole.working_set_bytes)? >= 50 * MIB);
    assert_eq!(whole.available_bytes, None, "the pod has no limit");
    Ok(())
}

#[tokio::test]
async fn the_writable_layer_grows_and_shrinks() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("layer");
    let (_, id) = world.run(&config, &world.sleeper("main")).await?;
    let first = container_stats(&world.client, &id).await?.writable_layer.context("writable layer")?;
    let (bytes, inodes) = (value(first.used_bytes)?, value(first.inodes_used)?);
    assert!(
        first.timestamp > 0 && bytes < MIB && (1..20).contains(&inodes),
        "{bytes} bytes, {inodes} inodes"
    );
    let mountpoint = first.fs_id.context("file system")?.mountpoint;
    assert_eq!(mountpoint, world.node.root().to_string_lossy(), "as ImageFsInfo has it");

    world
        .client
        .shell(&id, "dd if=/dev/zero of=/ten bs=1M count=10; ln /ten /same; sync; mkdir /d; touch /d/f")
        .await?;
    let used = |stats: &ContainerStats| {
        let layer = stats.writable_layer.as_ref();
        layer.and_then(|layer| layer.used_bytes).map_or(0, |used| used.value)
    };
    let grown = until(&world.client, &id, |stats| used(stats) >= bytes + 10 * MIB).await?;
    assert!(used(&grown) < bytes + 11 * MIB, "a file with two names counts once");
    let layer = grown.writable_layer.context("writable layer")?;
    let more = value(layer.inodes_used)? - inodes;
    assert!((3..20).contains(&more), "{more} inodes more");
    assert!(layer.timestamp > first.timestamp);

    world.client.shell(&id, "rm /ten /same").await?;
    until(&world.client, &id, |stats| used(stats) < bytes + MIB).await?;
    Ok(())
}

#[tokio::test]
async fn traffic_of_a_pod_is_counted_and_that_of_the_host_is_not() -> Result<()> {
    let world = World::start().await?;
    let script = "mkdir /www; dd if=/dev/zero of=/www/file bs=1M count=2; exec httpd -f -p 80 -h /www";
    let (server, _) = world.run(&world.pod("server"), &world.container("main", script)).await?;
    let (client, id) = world.run(&world.pod("client"), &world.sleeper("main")).await?;
    let traffic = |stats: LinuxPodSandboxStats| -> Result<(u64, u64)> {
        let network = stats.network.context("network")?;
        assert!(network.timestamp > 0);
        let interface = network.default_interface.context("default interface")?;
        assert_eq!(interface.name, "eth0");
        assert!(network.interfaces.iter().all(|other| other.name != "lo"), "{:?}", network.interfaces);
        assert!(interface.rx_errors.is_some() && interface.tx_errors.is_some());
        Ok((value(interface.rx_bytes)?, value(interface.tx_bytes)?))
    };
    let before = traffic(pod_stats(&world.client, &client).await?)?;
    let ip = world.client.pod_status(&server).await?.network.unwrap_or_default().ip;
    let fetch = format!(
        "for i in 1 2 3 4 5 6 7 8 9; do wget -qO /dev/null http://{ip}/file && exit 0; sleep 1; done; exit 1"
    );
    world.client.shell(&id, &fetch).await?;
    let after = traffic(pod_stats(&world.client, &client).await?)?;
    assert!(after.0 >= before.0 + 2 * MIB && after.1 > before.1, "{before:?} {after:?}");
    let served = traffic(pod_stats(&world.client, &server).await?)?;
    assert!(served.1 >= 2 * MIB, "{served:?}");

    let mut config = world.pod("host");
    let options = NamespaceOption { network: NamespaceMode::Node as i32, ..berth_e2e::world::namespaces() };
    let linux = config.linux.as_mut().context("linux")?;
    linux.security_context.as_mut().context("context")?.namespace_options = Some(options.clone());
    let mut spec = world.sleeper("main");
    let linux = spec.linux.as_mut().context("linux")?;
    linux.security_context.as_mut().context("context")?.namespace_options = Some(options);
    let (host, _) = world.run(&config, &spec).await?;
    assert_eq!(pod_stats(&world.client, &host).await?.network, None);
    Ok(())
}

#[tokio::test]
async fn lists_hold_what_runs_and_the_filter_admits() -> Result<()> {
    let world = World::start().await?;
    assert!(
        listed(&world.client, None).await?.is_empty() && listed_pods(&world.client, None).await?.is_empty()
    );
    let (mut config, mut spec) = (world.pod("one"), world.sleeper("main"));
    config.labels.insert("pod".into(), "one".into());
    spec.labels.insert("app".into(), "web".into());
    spec.annotations.insert("note".into(), "kept".into());
    let (pod, id) = world.run(&config, &spec).await?;
    let (other_pod, other) = world.run(&world.pod("two"), &world.sleeper("main")).await?;
    let created = world.client.create(&pod, &world.sleeper("created"), &config).await?;
    let exited = world.launch(&pod, &world.container("exited", "exit 0"), &config).await?;
    world.client.wait_exited(&exited, bound(Duration::from_secs(10))).await?;

    let label = |value: &str| [("app".to_string(), value.to_string())].into();
    let filters = [
        (None, vec![&id, &other]),
        (Some(ContainerStatsFilter::default()), vec![&id, &other]),
        (Some(ContainerStatsFilter { id: id.clone(), ..Default::default() }), vec![&id]),
        (Some(ContainerStatsFilter { id: id[..13].into(), ..Default::default() }), vec![&id]),
        (
            Some(ContainerStatsFilter { pod_sandbox_id: other_pod.clone(), ..Default::default() }),
            vec![&other],
        ),
        (Some(ContainerStatsFilter { label_selector: label("web"), ..Default::default() }), vec![&id]),
        (Some(ContainerStatsFilter { label_selector: label("none"), ..Default::default() }), vec![]),
        (Some(ContainerStatsFilter { id: exited.clone(), ..Default::default() }), vec![]),
        (Some(ContainerStatsFilter { id: created.clone(), ..Default::default() }), vec![]),
    ];
    for (filter, expected) in filters {
        let found = listed(&world.client, filter.clone()).await?;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let by_label = PodSandboxStatsFilter { label_selector: config.labels.clone(), ..Default::default() };
    assert_eq!(listed_pods(&world.client, Some(by_label)).await?, std::slice::from_ref(&pod));
    let by_id = PodSandboxStatsFilter { id: other_pod[..13].into(), ..Default::default() };
    assert_eq!(listed_pods(&world.client, Some(by_id)).await?, std::slice::from_ref(&other_pod));

    let attributes = container_stats(&world.client, &id).await?.attributes.context("attributes")?;
    assert_eq!((attributes.labels, attributes.annotations), (spec.labels, spec.annotations));
    assert_eq!(attributes.metadata, spec.metadata);
    for silent in [created, exited] {
        let stats = container_stats(&world.client, &silent).await?;
        assert!(stats.attributes.is_some() && stats.writable_layer.is_some(), "{stats:?}");
        assert!(stats.cpu.is_none() && stats.memory.is_none(), "{stats:?}");
    }
    world.client.stop_pod(&other_pod).await?;
    assert_eq!(listed_pods(&world.client, None).await?, [pod]);
    let stopped = pod_stats(&world.client, &other_pod).await?;
    assert!(
        stopped.cpu.is_none() && stopped.network.is_none() && stopped.containers.is_empty(),
        "{stopped:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() -> Result<()> {
    let world = World::start().await?;
    for id in ["none", &"0".repeat(64)] {
        expect_refusal(container_stats(&world.client, id).await, &[Code::NotFound], &[id]);
        expect_refusal(pod_stats(&world.client, id).await, &[Code::NotFound], &[id]);
    }
    expect_refusal(container_stats(&world.client, "").await, &[Code::InvalidArgument], &["container_id"]);
    expect_refusal(pod_stats(&world.client, "").await, &[Code::InvalidArgument], &["pod_sandbox_id"]);
    let missing = ContainerStatsFilter { id: "none".into(), ..Default::default() };
    assert!(listed(&world.client, Some(missing)).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn stats_survive_the_daemon() -> Result<()> {
    let mut world = World::start().await?;
    let (_, id) = world.run(&world.pod("keeps"), &world.container("main", BUSY)).await?;
    world.client.shell(&id, "dd if=/dev/zero of=/one bs=1M count=1").await?;
    let before = container_stats(&world.client, &id).await?.cpu.context("cpu")?;
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    let after = container_stats(&world.client, &id).await?.cpu.context("cpu")?;
    assert!(value(after.usage_core_nano_seconds)? > value(before.usage_core_nano_seconds)?);
    let whole = |stats: &ContainerStats| {
        let layer = stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes);
        let rate = stats.cpu.as_ref().and_then(|cpu| cpu.usage_nano_cores);
        layer.is_some_and(|used| used.value >= MIB) && rate.is_some()
    };
    until(&world.client, &id, whole).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_has_every_container_once_and_ends() -> Result<()> {
    let world = World::start().await?;
    let runtime = world.client.runtime.clone();
    let mut stream =
        runtime.clone().stream_container_stats(StreamContainerStatsRequest::default()).await?.into_inner();
    assert_eq!(stream.message().await?, None, "an empty list ends at once");
    let config = world.pod("stream");
    let pod = world.client.run_pod(&config).await?;
    let mut expected = Vec::new();
    for number in 0..6 {
        let mut spec = world.sleeper(&format!("main-{number}"));
        spec.annotations.insert("long".into(), "x".repeat(400 << 10));
        expected.push(world.launch(&pod, &spec, &config).await?);
    }
    let mut stream =
        runtime.clone().stream_container_stats(StreamContainerStatsRequest::default()).await?.into_inner();
    let (mut found, mut messages) = (Vec::new(), 0);
    while let Some(message) = stream.message().await? {
        messages += 1;
        assert!(!message.container_stats.is_empty());
        found
            .extend(message.container_stats.into_iter().map(|stats| stats.attributes.unwrap_or_default().id));
    }
    assert_eq!(found, expected);
    assert_eq!(messages, 3, "two of 400 KiB fit in a message");

    let mut stream =
        runtime.clone().stream_pod_sandbox_stats(StreamPodSandboxStatsRequest::default()).await?.into_inner();
    let message = stream.message().await?.context("no pod")?;
    assert_eq!(message.pod_sandbox_stats.len(), 1);
    assert_eq!(message.pod_sandbox_stats[0].linux.as_ref().map(|linux| linux.containers.len()), Some(6));
    assert_eq!(stream.message().await?, None);
    Ok(())
}

#[tokio::test]
async fn crictl_shows_stats_and_metrics() -> Result<()> {
    let world = World::start().await?;
    let (pod, id) = world.run(&world.pod("shown"), &world.container("busy", BUSY)).await?;
    let crictl = Crictl::new(&world.node)?;
    let stats: serde_json::Value = serde_json::from_str(&crictl.run(&["stats", "-o", "json", &id])?)?;
    assert_eq!(stats["stats"][0]["attributes"]["id"], id.as_str());
    assert_ne!(stats["stats"][0]["cpu"]["usageCoreNanoSeconds"]["value"], "0");
    let table = crictl.run(&["stats"])?;
    assert!(table.contains(&id[..13]) && table.contains("busy"), "{table}");
    let stats: serde_json::Value = serde_json::from_str(&crictl.run(&["statsp", "-o", "json", &pod])?)?;
    assert_eq!(stats["stats"][0]["linux"]["network"]["defaultInterface"]["name"], "eth0");
    let table = crictl.run(&["statsp"])?;
    assert!(table.contains(&pod[..13]), "{table}");
    let metrics: serde_json::Value = serde_json::from_str(&crictl.run(&["metricsp"])?)?;
    assert_eq!(metrics["podMetrics"][0]["podSandboxId"], pod.as_str());
    let descriptors: serde_json::Value = serde_json::from_str(&crictl.run(&["metricdescs"])?)?;
    assert!(descriptors["descriptors"].as_array().is_some_and(|all| all.len() > 40), "{descriptors}");
    Ok(())
}
