//! What operators look at: the metrics that Prometheus reads, and the traces that a collector is sent.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::client::{Client, image_spec};
use berth_e2e::collector::{Collector, texts};
use berth_e2e::metrics::{self, Page, scrape, value};
use berth_e2e::node::Options;
use berth_e2e::process;
use berth_e2e::remote::{Remote, Streams};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};
use berth_proto::cri::v1::*;
use tonic::{Code, Request};

/// A caller's span, as the kubelet names it (W3C Trace Context).
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Names, kinds and labels that charts/berth counts on.
const CONTRACT: [(&str, &str, &[&str]); 27] = [
    ("berth_rpc_duration_seconds", "histogram", &["service", "method"]),
    ("berth_rpc_errors", "counter", &["service", "method", "code"]),
    ("berth_pod_start_stage_duration_seconds", "histogram", &["stage"]),
    ("berth_pod_start_duration_seconds", "histogram", &[]),
    ("berth_image_pull_duration_seconds", "histogram", &["registry"]),
    ("berth_image_pull_bytes", "counter", &["registry"]),
    ("berth_image_pull_failures", "counter", &["registry", "reason"]),
    ("berth_image_pulls_in_progress", "gauge", &[]),
    ("berth_pods", "gauge", &["state"]),
    ("berth_containers", "gauge", &["state"]),
    ("berth_shims", "gauge", &[]),
    ("berth_shim_unexpected_exits", "counter", &[]),
    ("berth_restarts", "counter", &[]),
    ("berth_start_time_seconds", "gauge", &[]),
    ("berth_leaks_found", "counter", &["kind"]),
    ("berth_leaks_mended", "counter", &["kind"]),
    ("berth_image_layers", "gauge", &[]),
    ("berth_disk_used_bytes", "gauge", &["kind"]),
    ("berth_disk_inodes_used", "gauge", &["kind"]),
    ("berth_filesystem_avail_bytes", "gauge", &["path"]),
    ("berth_container_oom_kills", "counter", &[]),
    ("berth_streams_active", "gauge", &["kind"]),
    ("berth_build", "info", &["version", "commit"]),
    ("process_cpu_seconds", "counter", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
];

/// Whether the reason not to run has been printed.
fn skipped() -> bool {
    if Runtime::from_env().is_ok_and(|runtime| runtime == Runtime::Containerd) {
        println!("not run: these are Berth's own metrics and traces");
        return true;
    }
    // The emulated node has no Python; everywhere else a missing parser is an error.
    let emulated = std::env::var_os("BERTH_E2E_SLOWER").is_some();
    if emulated && !metrics::parser_is_there() {
        println!("not run: the emulated node has no python3-prometheus-client");
        return true;
    }
    false
}

async fn status(client: &Client) -> Result<StatusResponse> {
    Ok(client.runtime.clone().status(StatusRequest { verbose: true }).await?.into_inner())
}

async fn condition(client: &Client) -> Result<RuntimeCondition> {
    let conditions = status(client).await?.status.unwrap_or_default().conditions;
    conditions.into_iter().find(|one| one.r#type == "MetricsReady").context("no condition MetricsReady")
}

/// Where metrics are, as `crictl info` tells it.
async fn address(client: &Client) -> Result<String> {
    let info = status(client).await?.info;
    let config: serde_json::Value = serde_json::from_str(info.get("config").context("no config")?)?;
    let url = config["metrics"].as_str().context("no address of metrics")?;
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics"));
    Ok(address.with_context(|| format!("{url} is not as expected"))?.to_owned())
}

async fn page(world: &World) -> Result<Page> {
    scrape(&address(&world.client).await?).await
}

fn keeps_contract(page: &Page) -> Result<()> {
    for (name, kind, labels) in CONTRACT {
        let family = page.get(name).with_context(|| format!("no {name}"))?;
        assert_eq!(family.kind, kind, "{name}");
        assert!(!family.help.is_empty() && !family.samples.is_empty(), "{name}");
        for sample in &family.samples {
            let found: Vec<_> = sample.1.keys().filter(|key| *key != "le").map(String::as_str).collect();
            let mut labels = labels.to_vec();
            labels.sort_unstable();
            assert_eq!(found, labels, "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_metric_is_there_and_tells_what_has_happened() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = World::start().await?;
    let before = page(&world).await?;
    let config = world.pod("measured");
    let (pod, id) = world.run(&config, &world.sleeper("main")).await?;
    world.client.exec(&id, &["true"], 10).await?;
    let missing = world.registry.reference("missing:1");
    ensure!(world.client.pull(&missing).await.is_err());
    let mut spec = world.container("second", "true");
    spec.image = Some(image_spec("sha256:0000"));
    ensure!(world.client.create(&pod, &spec, &config).await.is_err());
    let after = page(&world).await?;

    keeps_contract(&after)?;
    let moved =
        |name: &str, labels: &[(&str, &str)]| value(&after, name, labels) - value(&before, name, labels);
    for stage in
        ["record", "shim", "cgroup", "namespaces", "network", "ready", "container_create", "container_start"]
    {
        assert_eq!(
            moved("berth_pod_start_stage_duration_seconds_count", &[("stage", stage)]),
            1.0,
            "{stage}"
        );
        assert!(moved("berth_pod_start_stage_duration_seconds_sum", &[("stage", stage)]) > 0.0, "{stage}");
    }
    assert_eq!(moved("berth_pod_start_duration_seconds_count", &[]), 1.0);
    for method in ["RunPodSandbox", "CreateContainer", "StartContainer", "ExecSync", "PullImage"] {
        let calls = if method == "CreateContainer" { 2.0 } else { 1.0 };
        assert_eq!(moved("berth_rpc_duration_seconds_count", &[("method", method)]), calls, "{method}");
    }
    let failed = |method, code| moved("berth_rpc_errors_total", &[("method", method), ("code", code)]);
    assert_eq!(
        (failed("CreateContainer", "NotFound"), failed("PullImage", "NotFound")),
        (1.0, 1.0),
        "{after:?}"
    );
    assert_eq!(moved("berth_rpc_errors_total", &[]), 2.0);
    let registry = world.registry.host();
    let of = [("registry", registry.as_str())];
    assert_eq!(moved("berth_image_pull_failures_total", &[of[0], ("reason", "not_found")]), 1.0);
    assert_eq!(value(&before, "berth_image_pull_duration_seconds_count", &of), 1.0);
    assert!(value(&before, "berth_image_pull_bytes_total", &of) > 100_000.0);
    assert_eq!((moved("berth_pods", &[("state", "ready")]), moved("berth_shims", &[])), (1.0, 1.0));
    assert_eq!(moved("berth_containers", &[("state", "running")]), 1.0);
    assert!(value(&after, "berth_disk_used_bytes", &[("kind", "layers")]) > 100_000.0);

    world.client.end_pod(&pod).await?;
    let last = page(&world).await?;
    for name in ["berth_pods", "berth_containers", "berth_shims", "berth_leaks_found_total"] {
        assert_eq!(value(&last, name, &[]), 0.0, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn sessions_are_counted_while_they_last() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("session"), &world.sleeper("main")).await?;
    let streams = Streams { stdin: true, ..Streams::default() };
    let mut remote = Remote::exec(&world.client, &id, &["cat"], streams).await?;
    remote.say(b"here").await?;
    remote.hear().await?;
    let active = async || Ok::<_, anyhow::Error>(value(&page(&world).await?, "berth_streams_active", &[]));
    assert_eq!(active().await?, 1.0);
    assert_eq!(value(&page(&world).await?, "berth_streams_active", &[("kind", "exec")]), 1.0);
    remote.end_input().await?;
    remote.finish().await?;
    eventually(Duration::from_secs(5), async || {
        ensure!(active().await? == 0.0, "a session that has ended is counted");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_unknown_rpc_or_page_makes_no_series() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = World::start().await?;
    let channel = berth_e2e::client::channel(&world.node.socket()).await?;
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/runtime.v1.RuntimeService/Anything");
    let codec = tonic_prost::ProstCodec::<VersionRequest, VersionResponse>::default();
    let refused = raw.unary(Request::new(VersionRequest::default()), path, codec).await;
    assert_eq!(refused.map(|_| ()).map_err(|status| status.code()), Err(Code::Unimplemented));
    let address = address(&world.client).await?;
    assert_eq!(metrics::get(&address, "/").await?.0.as_u16(), 404);
    let page = scrape(&address).await?;
    assert_eq!(value(&page, "berth_rpc_duration_seconds_count", &[("method", "Anything")]), 0.0);
    assert!(!page.contains_key("berth_rpc_errors"), "{page:?}");
    Ok(())
}

#[tokio::test]
async fn a_taken_address_is_told_and_pods_run_all_the_same() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let wanted = taken.local_addr()?.to_string();
    let config = format!("[metrics]\naddress = {wanted:?}\n");
    let world = World::start_with(Options { config, ..Options::default() }).await?;
    let told = condition(&world.client).await?;
    assert!(!told.status && told.reason == "AddressUnavailable", "{told:?}");
    assert!(told.message.contains(&wanted) && told.message.contains("since"), "{told:?}");
    assert!(world.node.log().contains("no metrics: cannot listen there"), "{}", world.node.log());
    let (pod, _) = world.run(&world.pod("runs"), &world.sleeper("main")).await?;
    world.client.end_pod(&pod).await?;

    drop(taken);
    eventually(Duration::from_secs(15), async || {
        ensure!(condition(&world.client).await?.status, "the free address is not taken");
        Ok(())
    })
    .await?;
    assert_eq!(value(&scrape(&wanted).await?, "berth_pod_start_duration_seconds_count", &[]), 1.0);
    Ok(())
}

#[tokio::test]
async fn leaks_restarts_and_dead_shims_are_counted() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut world = World::start().await?;
    world.run(&world.pod("dies"), &world.sleeper("main")).await?;
    assert_eq!(value(&page(&world).await?, "berth_restarts_total", &[]), 0.0);
    let shims = process::shims(&world.node.state());
    let shim = *shims.first().context("no shim")?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    eventually(Duration::from_secs(10), async || {
        let counted = value(&page(&world).await?, "berth_shim_unexpected_exits_total", &[]);
        ensure!(counted == 1.0, "the shim's death is not counted: {counted}");
        Ok(())
    })
    .await?;

    world.node.kill()?;
    // As crashes in the middle of a pull, of CreateContainer and of RunPodSandbox leave it, their records lost.
    let (id, digest) = ("ab".repeat(32), "cd".repeat(32));
    let (root, state) = (world.node.root(), world.node.state());
    for dir in [
        root.join("snapshots").join(&id).join("upper"),
        state.join("containers").join(&id),
        root.join("layers").join(&digest),
        root.join("pods").join(&id),
    ] {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(root.join("blobs").join(&digest), "{}")?;
    std::fs::write(state.join("netns").join(&id), "")?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    let page = page(&world).await?;
    for (kind, count) in [("snapshot", 1.0), ("bundle", 2.0), ("layer", 1.0), ("blob", 1.0), ("netns", 1.0)] {
        for name in ["berth_leaks_found_total", "berth_leaks_mended_total"] {
            assert_eq!(value(&page, name, &[("kind", kind)]), count, "{name} {kind}");
        }
    }
    assert_eq!(value(&page, "berth_restarts_total", &[]), 1.0);
    assert!(!state.join("netns").join(&id).exists() && !root.join("pods").join(&id).exists());
    Ok(())
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-01").parse().expect("a header value");
    request.metadata_mut().insert("traceparent", parent);
    request
}

fn sent_to(endpoint: &str) -> Options {
    Options { config: format!("[traces]\nendpoint = {endpoint:?}\n"), ..Options::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_tells_of_a_pods_whole_start() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let world = World::start_with(sent_to(&collector.endpoint())).await?;
    world.client.remove_image(&world.busybox).await?;
    let (config, spec) = (world.pod("traced"), world.sleeper("main"));
    let (mut runtime, mut images) = (world.client.runtime.clone(), world.client.images.clone());
    let run = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod_sandbox_id = runtime.run_pod_sandbox(traced(run)).await?.into_inner().pod_sandbox_id;
    let pull =
        PullImageRequest { image: spec.image.clone(), sandbox_config: Some(config.clone()), auth: None };
    images.pull_image(traced(pull)).await?;
    let create = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(spec),
        sandbox_config: Some(config),
    };
    let container_id = runtime.create_container(traced(create)).await?.into_inner().container_id;
    runtime.start_container(traced(StartContainerRequest { container_id: container_id.clone() })).await?;
    // Without a caller's trace, what changes something begins one, and a question does not.
    world.client.pods(None).await?;
    world.client.stop_pod(&pod_sandbox_id).await?;

    collector.wait_for("StopPodSandbox").await?;
    let spans = collector.spans();
    assert!(collector.services().iter().all(|service| service == "berth"), "{:?}", collector.services());
    assert!(spans.iter().all(|span| span.name != "ListPodSandbox"));
    let ours: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let find = |name: &str| {
        let found = ours.iter().find(|span| span.name == name);
        found.with_context(|| format!("no {name} in {:?}", ours.iter().map(|s| &s.name).collect::<Vec<_>>()))
    };
    for (rpc, stages) in [
        ("RunPodSandbox", ["record", "shim", "cgroup", "namespaces", "network", "ready"].as_slice()),
        ("PullImage", &["manifest", "layer", "publish"]),
        ("CreateContainer", &["container_create"]),
        ("StartContainer", &["container_start"]),
    ] {
        let call = find(rpc)?;
        assert_eq!(
            (hex(&call.parent_span_id).as_str(), call.kind),
            (PARENT, 2),
            "{rpc} is the caller's, and a server's"
        );
        assert_eq!(texts(&call.attributes).get("pod").map(String::as_str), Some("e2e/traced"), "{rpc}");
        for name in stages {
            let stage = find(name)?;
            assert_eq!(stage.parent_span_id, call.span_id, "{name} is of {rpc}");
            assert!(stage.start_time_unix_nano >= call.start_time_unix_nano, "{name}");
            assert!(stage.end_time_unix_nano <= call.end_time_unix_nano, "{name}");
        }
    }
    let stop = spans.iter().find(|span| span.name == "StopPodSandbox").context("no StopPodSandbox")?;
    assert!(stop.parent_span_id.is_empty() && hex(&stop.trace_id) != TRACE);
    assert_eq!(texts(&find("StartContainer")?.attributes).get("container_id"), Some(&container_id));
    Ok(())
}

/// How long 30 execs take, and how often the log says that traces are lost.
async fn costs(endpoint: &str) -> Result<(Duration, usize)> {
    let mut world = World::start_with(sent_to(endpoint)).await?;
    let (_, id) = world.run(&world.pod("untraced"), &world.sleeper("main")).await?;
    let start = Instant::now();
    for _ in 0..30 {
        world.client.exec(&id, &["true"], 10).await?;
    }
    let took = start.elapsed();
    // What fails again is not told again.
    tokio::time::sleep(bound(Duration::from_secs(6))).await;
    world.client.end_all_pods().await?;
    tokio::time::sleep(bound(Duration::from_secs(6))).await;
    let stop = Instant::now();
    world.node.stop()?;
    ensure!(stop.elapsed() < bound(Duration::from_secs(4)), "the end takes {:?}", stop.elapsed());
    Ok((took, world.node.log().matches("cannot send traces").count()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_hangs_slows_nothing_down() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let away = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    // Accepts by its backlog, and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0")?;
    let (away, mute_url) = (format!("http://{away}"), format!("http://{}", mute.local_addr()?));
    let (plain, refused, hung) = tokio::try_join!(costs(""), costs(&away), costs(&mute_url))?;
    assert_eq!((plain.1, refused.1, hung.1), (0, 1, 1), "warnings");
    let (plain, refused, hung) = (plain.0, refused.0, hung.0);
    println!("30 execs: {plain:?}; collector away: {refused:?}, mute: {hung:?}");
    let slow = plain * 3 + bound(Duration::from_millis(500));
    assert!(refused < slow && hung < slow, "{plain:?} {refused:?} {hung:?}");
    Ok(())
}
