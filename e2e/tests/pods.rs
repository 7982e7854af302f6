//! Pods: run, look, list, stop, remove.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use tonic::Code;

#[tokio::test]
async fn a_pod_comes_up_with_an_address_and_leaves_nothing_behind() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;

    let config = world.pod("web");
    let id = world.client.run_pod(&config).await?;
    let status = world.client.pod_status(&id).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, config.metadata);
    assert!(status.created_at > 0);
    let ip = status.network.unwrap_or_default().ip;
    assert!(ip.starts_with(&world.node.network().prefix()), "{ip}");

    world.client.end_pod(&id).await?;
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn labels_and_annotations_come_back_as_they_went_in() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("labelled");
    config.labels = BTreeMap::from([("app".into(), "web".into()), ("tier".into(), String::new())]);
    config.annotations = BTreeMap::from([("note".into(), "line one\nline two ü".into())]);
    let id = world.client.run_pod(&config).await?;

    let status = world.client.pod_status(&id).await?;
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
    let listed = world.client.pods(None).await?;
    assert_eq!((&listed[0].labels, &listed[0].annotations), (&config.labels, &config.annotations));
    Ok(())
}

#[tokio::test]
async fn pods_are_found_by_id_state_and_label() -> Result<()> {
    let world = World::start().await?;
    let mut one = world.pod("one");
    one.labels.insert("color".into(), "red".into());
    let one = world.client.run_pod(&one).await?;
    let two = world.client.run_pod(&world.pod("two")).await?;
    world.client.stop_pod(&two).await?;

    let find = async |filter| -> Result<Vec<String>> {
        let mut ids: Vec<_> = world.client.pods(Some(filter)).await?.into_iter().map(|pod| pod.id).collect();
        ids.sort();
        Ok(ids)
    };
    let state = |state: PodSandboxState| Some(PodSandboxStateValue { state: state as i32 });
    let by_id = PodSandboxFilter { id: one.clone(), ..Default::default() };
    assert_eq!(find(by_id).await?, std::slice::from_ref(&one));
    let by_prefix = PodSandboxFilter { id: one[..13].into(), ..Default::default() };
    assert_eq!(find(by_prefix).await?, std::slice::from_ref(&one));
    let ready = PodSandboxFilter { state: state(PodSandboxState::SandboxReady), ..Default::default() };
    assert_eq!(find(ready).await?, std::slice::from_ref(&one));
    let not_ready = PodSandboxFilter { state: state(PodSandboxState::SandboxNotready), ..Default::default() };
    assert_eq!(find(not_ready).await?, std::slice::from_ref(&two));
    let selector = |value: &str| BTreeMap::from([("color".into(), value.into())]);
    let red = PodSandboxFilter { label_selector: selector("red"), ..Default::default() };
    assert_eq!(find(red).await?, std::slice::from_ref(&one));
    let blue = PodSandboxFilter { label_selector: selector("blue"), ..Default::default() };
    assert_eq!(find(blue).await?, Vec::<String>::new());
    let both = PodSandboxFilter { id: two, label_selector: selector("red"), ..Default::default() };
    assert_eq!(find(both).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn stop_and_remove_can_be_said_twice_and_of_unknown_pods() -> Result<()> {
    let world = World::start().await?;
    let (pod, container) = world.run(&world.pod("twice"), &world.sleeper("main")).await?;
    for _ in 0..2 {
        world.client.stop_pod(&pod).await?;
    }
    let status = world.client.pod_status(&pod).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    for _ in 0..2 {
        world.client.remove_pod(&pod).await?;
    }
    expect_refusal(world.client.pod_status(&pod).await, &[Code::NotFound], &[]);
    expect_refusal(world.client.status(&container).await, &[Code::NotFound], &[]);
    world.client.end_pod("0123456789abcdef").await?;
    Ok(())
}

#[tokio::test]
async fn stopping_a_pod_ends_all_its_containers() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("three");
    let pod = world.client.run_pod(&config).await?;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(world.launch(&pod, &world.container(name, "trap '' TERM; sleep 1000"), &config).await?);
    }
    world.client.stop_pod(&pod).await?;
    for id in ids {
        let status = world.client.wait_exited(&id, Duration::from_secs(5)).await?;
        assert_eq!(status.exit_code, 137, "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn removing_a_pod_takes_its_running_containers_with_it() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;
    let (pod, container) = world.run(&world.pod("gone"), &world.sleeper("main")).await?;
    world.client.remove_pod(&pod).await?;
    expect_refusal(world.client.status(&container).await, &[Code::NotFound], &[]);
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_retry_of_the_same_pod_gives_the_same_pod() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd refuses a name that is taken");
        return Ok(());
    }
    let config = world.pod("retried");
    let one = world.client.run_pod(&config).await?;
    assert_eq!(world.client.run_pod(&config).await?, one);
    assert_eq!(world.client.pods(None).await?.len(), 1);

    let mut next = config.clone();
    next.metadata.as_mut().unwrap().attempt = 1;
    assert_ne!(world.client.run_pod(&next).await?, one, "another attempt is another pod");
    Ok(())
}

#[tokio::test]
async fn sysctls_of_the_pod_are_seen_in_its_containers() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("sysctl");
    config.linux.as_mut().unwrap().sysctls = BTreeMap::from([
        ("net.ipv4.ip_local_port_range".into(), "20000 21000".into()),
        ("kernel.shm_rmid_forced".into(), "1".into()),
        ("fs.mqueue.msg_max".into(), "100".into()),
    ]);
    let (_, id) = world.run(&config, &world.sleeper("main")).await?;
    let script = "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced fs/mqueue/msg_max";
    let values = world.client.shell(&id, script).await?;
    assert_eq!(values.split_whitespace().collect::<Vec<_>>(), ["20000", "21000", "1", "100"]);
    Ok(())
}

#[tokio::test]
async fn a_shared_process_namespace_has_an_init_that_reaps() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("shared-pid");
    let shared = NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() };
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(shared.clone());
    let mut container = world.sleeper("main");
    let security = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(shared);

    let (pod, id) = world.run(&config, &container).await?;
    container.metadata = Some(ContainerMetadata { name: "other".into(), attempt: 0 });
    let other = world.launch(&pod, &container, &config).await?;
    let first = world.client.shell(&id, "cat /proc/1/cmdline | tr '\\0' ' '").await?;
    assert!(!first.contains("sleep"), "the container is not process 1: {first}");
    let seen = world.client.shell(&other, "ps | grep -c 'while :'").await?;
    assert!(seen.trim().parse::<u32>()? >= 2, "each sees the processes of the other");

    // An orphan goes to process 1 when its parent ends, and must not stay a zombie.
    world.client.shell(&id, "(sleep 0.2 &) ; sleep 1").await?;
    let zombies = world.client.shell(&id, "ps -o stat= | grep -c Z; true").await?;
    assert_eq!(zombies.trim(), "0");
    Ok(())
}

#[tokio::test]
async fn a_pod_can_have_the_hosts_namespaces() -> Result<()> {
    let world = World::start().await?;
    let mut config = world.pod("host");
    let host = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Node as i32,
        ipc: NamespaceMode::Node as i32,
        ..Default::default()
    };
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(host.clone());
    let mut container = world.sleeper("main");
    let security = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(host);
    config.hostname = String::new();

    let (pod, id) = world.run(&config, &container).await?;
    for name in ["net", "pid", "ipc"] {
        let inside = world.client.shell(&id, &format!("readlink /proc/self/ns/{name}")).await?;
        let host = std::fs::read_link(format!("/proc/self/ns/{name}"))?;
        assert_eq!(inside.trim(), host.to_string_lossy(), "{name}");
    }
    assert_eq!(world.client.pod_status(&pod).await?.network.unwrap_or_default().ip, "");
    Ok(())
}
