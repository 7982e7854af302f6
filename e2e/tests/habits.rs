//! The kubelet's habits: it asks twice, gives up and asks again, and wants to know of all pods while one of them hangs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::bound;
use berth_e2e::client::{Client, expect_refusal};
use berth_e2e::crictl::Crictl;
use berth_e2e::node::Options;
use berth_e2e::runtime::{Runtime, tool};
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;

fn only_berth(world: &World) -> bool {
    let berth = world.node.runtime() == Runtime::Berth;
    if !berth {
        println!("not run: others do it otherwise");
    }
    berth
}

/// Everything that is answered from memory, within a time that no hang of anything may stretch.
async fn answers_at_once(client: &Client, pod: &str, container: Option<&str>) -> Result<()> {
    let start = Instant::now();
    client.pods(None).await?;
    client.containers(None).await?;
    client.list_images().await?;
    client.pod_status(pod).await?;
    if let Some(container) = container {
        client.status(container).await?;
    }
    client.runtime.clone().status(StatusRequest { verbose: true }).await?;
    let took = start.elapsed();
    anyhow::ensure!(took < bound(Duration::from_secs(3)), "{took:?}");
    Ok(())
}

async fn shim_of(client: &Client, pod: &str) -> Result<Pid> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let reply = client.runtime.clone().pod_sandbox_status(request).await?.into_inner();
    let info: serde_json::Value = serde_json::from_str(&reply.info["info"])?;
    let pid = info["pid"].as_i64().context("no pid")?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

#[tokio::test]
async fn a_hung_shim_concerns_its_own_pod_only_and_can_be_ended() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let before = world.settled_census().await?;
    let config = world.pod("hung");
    let (pod, id) = world.run(&config, &world.sleeper("main")).await?;
    kill(shim_of(&world.client, &pod).await?, Signal::SIGSTOP)?;

    answers_at_once(&world.client, &pod, Some(&id)).await?;
    let (client, stuck) = (world.client.clone(), id.clone());
    let exec = tokio::spawn(async move { client.exec(&stuck, &["true"], 1).await });
    let start = Instant::now();
    let (other, _) = world.run(&world.pod("other"), &world.sleeper("main")).await?;
    world.client.end_pod(&other).await?;
    assert!(start.elapsed() < bound(Duration::from_secs(20)), "{:?}", start.elapsed());
    answers_at_once(&world.client, &pod, Some(&id)).await?;

    world.client.stop_pod(&pod).await?;
    assert_eq!(world.client.pod_status(&pod).await?.state(), PodSandboxState::SandboxNotready);
    assert_eq!(world.client.status(&id).await?.state(), ContainerState::ContainerExited);
    world.client.end_pod(&pod).await?;
    assert!(exec.await?.is_err());
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_shim_that_hangs_in_the_middle_of_a_start_leaves_nothing_behind() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let before = world.settled_census().await?;
    let config = world.pod("stuck");
    let pod = world.client.run_pod(&config).await?;
    let id = world.client.create(&pod, &world.sleeper("main"), &config).await?;
    kill(shim_of(&world.client, &pod).await?, Signal::SIGSTOP)?;
    let (client, stuck) = (world.client.clone(), id.clone());
    let start = tokio::spawn(async move { client.start(&stuck).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    answers_at_once(&world.client, &pod, Some(&id)).await?;
    world.client.end_pod(&pod).await?;
    assert!(start.await?.is_err());
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_shim_that_hangs_while_the_daemon_comes_back_is_ended_with_its_pod() -> Result<()> {
    let mut world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let before = world.settled_census().await?;
    let (pod, id) = world.run(&world.pod("hung"), &world.sleeper("main")).await?;
    let (other, fine) = world.run(&world.pod("other"), &world.sleeper("main")).await?;
    kill(shim_of(&world.client, &pod).await?, Signal::SIGSTOP)?;
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    assert_eq!(world.client.pod_status(&pod).await?.state(), PodSandboxState::SandboxNotready);
    assert_eq!(world.client.status(&id).await?.state(), ContainerState::ContainerExited);
    world.client.exec(&fine, &["true"], 10).await?;
    for pod in [&pod, &other] {
        world.client.end_pod(pod).await?;
    }
    world.expect_nothing_left(&before).await
}

/// A plugin that hangs in the given verb of CNI, and does the others well.
fn install_hanging(world: &World, verb: &str) -> Result<()> {
    std::fs::create_dir_all(world.node.plugin_dir())?;
    let path = world.node.plugin_dir().join("sleepy");
    let script = format!(
        "#!/bin/sh\n[ \"$CNI_COMMAND\" = {verb} ] && exec sleep 1000\n\
         [ \"$CNI_COMMAND\" = ADD ] && echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[]}}'\nexit 0\n"
    );
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

#[tokio::test]
async fn a_hung_network_plugin_delays_no_answer() -> Result<()> {
    let world = World::start_with(Options { cni: true, ..Options::default() }).await?;
    if !only_berth(&world) || tool("cni", "bridge").is_err() {
        println!("not run: needs Berth and `e2e/tools/build cni`");
        return Ok(());
    }
    let (pod, id) = world.run(&world.pod("fine"), &world.sleeper("main")).await?;
    let list = world.node.conf_dir().join("00-sleepy.conflist");
    for verb in ["ADD", "STATUS"] {
        install_hanging(&world, verb)?;
        std::fs::write(&list, r#"{"cniVersion":"1.1.0","name":"sleepy","plugins":[{"type":"sleepy"}]}"#)?;
        let (client, config) = (world.client.clone(), world.pod(verb));
        let hung = tokio::spawn(async move { client.run_pod(&config).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..2 {
            answers_at_once(&world.client, &pod, Some(&id)).await?;
        }
        if let Ok(other) = hung.await? {
            world.client.end_pod(&other).await?;
        }
    }
    // A caller that has gone: the call ends by itself, and leaves nothing.
    install_hanging(&world, "ADD")?;
    let before = world.census()?;
    let config = world.pod("gone");
    let _ = tokio::time::timeout(Duration::from_millis(500), world.client.run_pod(&config)).await;
    tokio::time::sleep(bound(Duration::from_secs(8))).await;
    world.expect_nothing_left(&before).await?;
    install_hanging(&world, "STATUS")?;
    answers_at_once(&world.client, &pod, Some(&id)).await?;
    // The plugin's time is over: the node says that it cannot connect pods, until it can.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let network = network_condition(&world.client).await?;
    assert!(!network.status && network.message.contains("sleepy"), "{network:?}");
    std::fs::remove_file(list)?;
    let start = Instant::now();
    while !network_condition(&world.client).await?.status {
        anyhow::ensure!(start.elapsed() < bound(Duration::from_secs(15)), "the node does not recover");
    }
    Ok(())
}

async fn network_condition(client: &Client) -> Result<RuntimeCondition> {
    let status = client.runtime.clone().status(StatusRequest { verbose: false }).await?.into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    conditions.into_iter().find(|one| one.r#type == "NetworkReady").context("no condition NetworkReady")
}

#[tokio::test]
async fn a_hung_registry_delays_no_answer_and_a_short_deadline_is_told_as_one() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let (pod, id) = world.run(&world.pod("fine"), &world.sleeper("main")).await?;
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let name = format!("{}/image:latest", silent.local_addr()?);
    let (client, image) = (world.client.clone(), name.clone());
    let pull = tokio::spawn(async move { client.pull(&image).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    answers_at_once(&world.client, &pod, Some(&id)).await?;
    world.client.pull(&world.busybox).await?;
    pull.abort();
    let crictl = Crictl::new(&world.node)?;
    let error = crictl.run(&["pull", "--pull-timeout", "1ms", &name]).expect_err("1 ms is too short");
    assert!(format!("{error:#}").contains("DeadlineExceeded"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn calls_with_the_same_name_at_the_same_time_are_one() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let (config, container) = (world.pod("same"), world.sleeper("main"));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, config) = (world.client.clone(), config.clone());
        calls.spawn(async move { client.run_pod(&config).await });
    }
    let pods: std::collections::BTreeSet<_> = calls.join_all().await.into_iter().collect::<Result<_, _>>()?;
    let pod = pods.first().context("a pod")?.clone();
    assert_eq!((pods.len(), world.client.pods(None).await?.len()), (1, 1));

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, pod, config, container) =
            (world.client.clone(), pod.clone(), config.clone(), container.clone());
        calls.spawn(async move { client.create(&pod, &container, &config).await });
    }
    let ids: std::collections::BTreeSet<_> = calls.join_all().await.into_iter().collect::<Result<_, _>>()?;
    assert_eq!((ids.len(), world.client.containers(None).await?.len()), (1, 1));
    world.client.start(ids.first().context("a container")?).await?;

    let other = ContainerConfig { args: vec!["other".into()], ..container };
    expect_refusal(world.client.create(&pod, &other, &config).await, &[Code::AlreadyExists], &["main"]);
    Ok(())
}

#[tokio::test]
async fn every_stop_and_remove_can_be_said_by_many_at_once() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let before = world.settled_census().await?;
    let config = world.pod("many");
    let (pod, id) = world.run(&config, &world.container("main", "trap '' TERM; sleep 1000")).await?;
    let second = world.launch(&pod, &world.sleeper("second"), &config).await?;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..32 {
        let (client, pod, id, second) = (world.client.clone(), pod.clone(), id.clone(), second.clone());
        calls.spawn(async move {
            match number % 8 {
                0 => client.stop(&id, 1).await,
                1 => client.stop(&id, 0).await,
                2 | 3 => client.remove(&id).await,
                4 => client.remove(&second).await,
                5 => client.stop(&second, 5).await,
                6 => client.stop_pod(&pod).await,
                _ => client.remove_pod(&pod).await,
            }
        });
    }
    for done in calls.join_all().await {
        done?;
    }
    assert!(world.client.pods(None).await?.is_empty() && world.client.containers(None).await?.is_empty());
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_caller_that_gives_up_finds_its_pod_when_it_asks_again() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let before = world.settled_census().await?;
    for delay in [1, 5, 20, 60] {
        let (config, container) = (world.pod("impatient"), world.sleeper("main"));
        let limit = Duration::from_millis(delay);
        let _ = tokio::time::timeout(limit, world.client.run_pod(&config)).await;
        let pod = world.client.run_pod(&config).await?;
        let _ = tokio::time::timeout(limit, world.client.create(&pod, &container, &config)).await;
        let id = world.client.create(&pod, &container, &config).await?;
        assert_eq!(
            (world.client.pods(None).await?.len(), world.client.containers(None).await?.len()),
            (1, 1)
        );
        let _ = tokio::time::timeout(limit, world.client.start(&id)).await;
        let _ = tokio::time::timeout(limit, world.client.stop_pod(&pod)).await;
        world.client.end_pod(&pod).await?;
    }
    world.expect_nothing_left(&before).await
}
