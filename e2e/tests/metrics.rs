//! Metrics of pods and containers, as the kubelet asks for them instead of cAdvisor's: names, labels, values.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use berth_e2e::client::Client;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;

/// Those that no node with this kernel may do without.
const ALWAYS: usize = 48;
/// Samples that a container need not have: it may have used no device.
const OPTIONAL: [&str; 5] = [
    "container_blkio_device_usage_total",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
    "container_fs_writes_bytes_total",
    "container_fs_writes_total",
];

type Descriptors = BTreeMap<String, MetricDescriptor>;

async fn descriptors(client: &Client) -> Result<Descriptors> {
    let reply = client.runtime.clone().list_metric_descriptors(ListMetricDescriptorsRequest {}).await?;
    let listed = reply.into_inner().descriptors;
    let count = listed.len();
    let by_name: Descriptors = listed.into_iter().map(|found| (found.name.clone(), found)).collect();
    assert_eq!(by_name.len(), count, "a name is declared twice");
    Ok(by_name)
}

async fn metrics(client: &Client) -> Result<Vec<PodSandboxMetrics>> {
    let reply = client.runtime.clone().list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await?;
    Ok(reply.into_inner().pod_metrics)
}

/// The one sample of a name whose labels hold all of these.
fn sample(metrics: &[Metric], name: &str, labels: &[&str]) -> Result<u64> {
    let fits = |metric: &&Metric| {
        metric.name == name
            && labels.iter().all(|label| metric.label_values.iter().any(|value| value == label))
    };
    let found = metrics.iter().find(fits).with_context(|| format!("no sample of {name} {labels:?}"))?;
    Ok(found.value.context("no value")?.value)
}

/// As critest's container for metrics: with limits on processor and memory.
fn limited(world: &World, script: &str) -> ContainerConfig {
    let mut spec = world.container("main", script);
    spec.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    spec
}

#[tokio::test]
async fn every_descriptor_has_samples_with_its_labels() -> Result<()> {
    let world = World::start().await?;
    let (pod, id) = world.run(&world.pod("metrics"), &limited(&world, "while :; do :; done")).await?;
    world
        .client
        .shell(&id, "mkdir -p /var/lib/x && for i in 1 2 3; do echo hi > /var/lib/x/$i; done; sync")
        .await?;
    let declared = descriptors(&world.client).await?;
    assert!(declared.len() >= ALWAYS, "{} descriptors", declared.len());
    let listed = metrics(&world.client).await?;
    let of_pod = listed.iter().find(|metrics| metrics.pod_sandbox_id == pod).context("the pod is missing")?;
    assert_eq!(of_pod.container_metrics.len(), 1);
    assert_eq!(of_pod.container_metrics[0].container_id, id);
    let mut names = BTreeSet::new();
    for metric in of_pod.metrics.iter().chain(&of_pod.container_metrics[0].metrics) {
        let descriptor =
            declared.get(&metric.name).with_context(|| format!("{} is not declared", metric.name))?;
        assert!(!descriptor.help.is_empty(), "{}", metric.name);
        assert_eq!(metric.label_values.len(), descriptor.label_keys.len(), "{metric:?}");
        let counts = match metric.name.as_str() {
            "container_memory_failcnt" => true,
            // cAdvisor's name for how many there can be.
            "container_fs_inodes_total" => false,
            name => name.ends_with("_total"),
        };
        let kind = if counts { MetricType::Counter } else { MetricType::Gauge };
        assert_eq!(metric.metric_type(), kind, "{}", metric.name);
        let cached = metric.name == "container_fs_usage_bytes";
        assert_eq!(metric.timestamp != 0, cached, "{metric:?}: read for the answer, or before");
        names.insert(metric.name.as_str());
    }
    let silent: Vec<_> = declared
        .keys()
        .filter(|name| !names.contains(name.as_str()) && !OPTIONAL.contains(&name.as_str()))
        .collect();
    assert!(silent.is_empty(), "declared and never told: {silent:?}");
    Ok(())
}

#[tokio::test]
async fn values_are_those_of_the_container() -> Result<()> {
    let world = World::start().await?;
    let script = "exec 7</etc/passwd; ulimit -Sn 500; trap : TERM; while :; do :; done";
    let (_, id) = world.run(&world.pod("values"), &limited(&world, script)).await?;
    world.client.shell(&id, "dd if=/dev/zero of=/dev/null bs=1M count=8").await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let listed = metrics(&world.client).await?;
    let found = &listed.first().context("no pod")?.container_metrics.first().context("no container")?.metrics;
    let value = |name: &str| sample(found, name, &[]);
    assert_eq!(value("container_spec_cpu_shares")?, 512);
    assert_eq!((value("container_spec_cpu_period")?, value("container_spec_cpu_quota")?), (100_000, 20_000));
    assert_eq!(value("container_spec_memory_limit_bytes")?, 64 << 20);
    assert_eq!(value("container_spec_memory_reservation_limit_bytes")?, 0);
    assert_eq!((value("container_processes")?, value("container_threads")?), (1, 1));
    assert!(value("container_file_descriptors")? >= 4, "its three, and one opened by itself");
    assert_eq!(sample(found, "container_ulimits_soft", &["max_open_files"])?, 500);
    assert!(value("container_cpu_cfs_throttled_periods_total")? > 0, "a fifth of a processor is not enough");
    assert!(value("container_cpu_cfs_periods_total")? >= value("container_cpu_cfs_throttled_periods_total")?);
    let (usage, working_set) =
        (value("container_memory_usage_bytes")?, value("container_memory_working_set_bytes")?);
    assert!(working_set <= usage && usage <= value("container_memory_max_usage_bytes")?);
    assert!(sample(found, "container_memory_failures_total", &["pgfault", "container"])? > 0);
    assert_eq!(value("container_oom_events_total")?, 0);
    let (seen, started) = (value("container_last_seen")?, value("container_start_time_seconds")?);
    assert!(started <= seen && seen - started < 120, "{started} {seen}");
    let (inodes, free) = (value("container_fs_inodes_total")?, value("container_fs_inodes_free")?);
    assert!(free <= inodes && value("container_fs_usage_bytes")? < value("container_fs_limit_bytes")?);

    let metric = found.iter().find(|metric| metric.name == "container_memory_rss").context("rss")?;
    let declared = descriptors(&world.client).await?;
    let keys = &declared["container_memory_rss"].label_keys;
    let labels: BTreeMap<_, _> = keys.iter().map(String::as_str).zip(metric.label_values.iter()).collect();
    assert_eq!((labels["namespace"].as_str(), labels["pod"].as_str()), ("e2e", "values"));
    assert_eq!((labels["container"].as_str(), labels["name"].as_str()), ("main", id.as_str()));
    assert_eq!(labels["image"], &world.busybox);
    assert!(labels["id"].ends_with(&id) && labels["id"].starts_with('/'), "{labels:?}");
    Ok(())
}

#[tokio::test]
async fn the_network_is_the_pods_and_pods_that_do_not_run_have_no_metrics() -> Result<()> {
    let world = World::start().await?;
    assert!(metrics(&world.client).await?.is_empty());
    let pod = world.client.run_pod(&world.pod("network")).await?;
    let listed = metrics(&world.client).await?;
    let found = &listed.first().context("no pod")?.metrics;
    assert_eq!(found.len(), 8, "one of each for eth0");
    assert!(found.iter().all(|metric| metric.label_values.contains(&"POD".to_string())), "{found:?}");
    sample(found, "container_network_receive_bytes_total", &["eth0", "network"])?;
    let mut stream = world
        .client
        .runtime
        .clone()
        .stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest {})
        .await?
        .into_inner();
    let message = stream.message().await?.context("no pod")?;
    assert_eq!(message.pod_sandbox_metrics.len(), 1);
    assert_eq!(stream.message().await?, None);
    world.client.stop_pod(&pod).await?;
    assert!(metrics(&world.client).await?.is_empty());
    Ok(())
}
