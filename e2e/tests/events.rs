//! GetContainerEvents: what happens, in order, with the whole pod in each event. The client is our own binding: the
//! independent one of other tests has none of the newer fields.

use std::time::{Duration, Instant};

use anyhow::Result;
use berth_e2e::bound;
use berth_e2e::runtime::Runtime;
use berth_e2e::watch::Events;
use berth_e2e::world::World;
use berth_proto::cri::v1::ContainerEventType::*;
use berth_proto::cri::v1::*;
use tonic::Code;

fn only_berth(world: &World) -> bool {
    let berth = world.node.runtime() == Runtime::Berth;
    if !berth {
        println!("not run: containerd sends other events");
    }
    berth
}

fn kinds(events: &[ContainerEventResponse]) -> Vec<(ContainerEventType, &str)> {
    events.iter().map(|event| (event.container_event_type(), event.container_id.as_str())).collect()
}

#[tokio::test]
async fn the_life_of_a_pod_is_told_in_order_with_its_state_at_each_moment() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let mut watch = Events::watch(&world.client).await?;
    let config = world.pod("life");
    let pod = world.client.run_pod(&config).await?;
    let failing = world.launch(&pod, &world.container("failing", "sleep 0.2; exit 3"), &config).await?;
    world.client.wait_exited(&failing, Duration::from_secs(10)).await?;
    let other = world.launch(&pod, &world.sleeper("other"), &config).await?;
    world.client.remove(&failing).await?;
    world.client.stop_pod(&pod).await?;
    world.client.remove_pod(&pod).await?;

    let events = watch.take(11).await?;
    let expected = [
        (ContainerCreatedEvent, pod.as_str()),
        (ContainerStartedEvent, &pod),
        (ContainerCreatedEvent, &failing),
        (ContainerStartedEvent, &failing),
        (ContainerStoppedEvent, &failing),
        (ContainerCreatedEvent, &other),
        (ContainerStartedEvent, &other),
        (ContainerDeletedEvent, &failing),
        (ContainerStoppedEvent, &other),
        (ContainerStoppedEvent, &pod),
        (ContainerDeletedEvent, &other),
    ];
    assert_eq!(kinds(&events), expected);
    let last = watch.next().await?;
    assert_eq!((last.container_event_type(), &last.container_id), (ContainerDeletedEvent, &pod));
    assert_eq!(last.pod_sandbox_status.as_ref().map(|pod| &pod.id), Some(&pod), "whose pod it was");
    assert!(last.containers_statuses.is_empty());

    assert!(events.is_sorted_by(|a, b| a.created_at < b.created_at));
    for event in &events {
        let status = event.pod_sandbox_status.as_ref().expect("a pod");
        assert_eq!(status.metadata, config.metadata);
    }
    let states = |at: usize| -> Vec<(&str, ContainerState)> {
        events[at].containers_statuses.iter().map(|one| (one.id.as_str(), one.state())).collect()
    };
    use ContainerState::*;
    assert!(states(1).is_empty());
    assert_eq!(states(2), [(failing.as_str(), ContainerCreated)]);
    assert_eq!(states(3), [(failing.as_str(), ContainerRunning)]);
    assert_eq!(events[4].containers_statuses[0].exit_code, 3);
    assert_eq!(states(6), [(failing.as_str(), ContainerExited), (&other, ContainerRunning)]);
    assert_eq!(states(7), [(other.as_str(), ContainerRunning)], "a deleted container is not listed");
    let ready = |at: usize| events[at].pod_sandbox_status.as_ref().map(PodSandboxStatus::state);
    assert_eq!(ready(8), Some(PodSandboxState::SandboxReady));
    assert_eq!(ready(9), Some(PodSandboxState::SandboxNotready));
    let ip = |at: usize| events[at].pod_sandbox_status.clone().unwrap().network.unwrap_or_default().ip;
    assert!(ip(0).starts_with(&world.node.network().prefix()), "{:?}", ip(0));
    Ok(())
}

#[tokio::test]
async fn a_pods_status_fits_between_the_events() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let mut watch = Events::watch(&world.client).await?;
    let (pod, id) = world.run(&world.pod("between"), &world.sleeper("main")).await?;
    let before = watch.take(4).await?;
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let reply = world.client.runtime.clone().pod_sandbox_status(request).await?.into_inner();
    world.client.stop(&id, 0).await?;
    let after = watch.next().await?;
    assert!(before[3].created_at < reply.timestamp && reply.timestamp < after.created_at);
    assert_eq!(reply.containers_statuses, [world_status(&before[3])]);
    assert_eq!(reply.status, before[3].pod_sandbox_status);
    assert_eq!(after.containers_statuses, [world.client.status(&id).await?]);
    Ok(())
}

fn world_status(event: &ContainerEventResponse) -> ContainerStatus {
    event.containers_statuses[0].clone()
}

#[tokio::test]
async fn a_start_that_fails_is_an_end() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let config = world.pod("never");
    let pod = world.client.run_pod(&config).await?;
    let mut watch = Events::watch(&world.client).await?;
    let mut container = world.sleeper("main");
    container.command = vec!["/does/not/exist".into()];
    let id = world.client.create(&pod, &container, &config).await?;
    assert!(world.client.start(&id).await.is_err());
    let events = watch.take(2).await?;
    assert_eq!(kinds(&events), [(ContainerCreatedEvent, id.as_str()), (ContainerStoppedEvent, &id)]);
    assert_eq!(world_status(&events[1]).reason, "StartError");
    Ok(())
}

#[tokio::test]
async fn all_watchers_see_the_same_and_one_that_comes_back_misses_nothing() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(Events::watch(&world.client).await?);
    }
    let config = world.pod("watched");
    let pod = world.client.run_pod(&config).await?;
    let mut seen = Vec::new();
    for watch in &mut watches {
        seen.push(watch.take(2).await?);
    }
    assert!(seen.iter().all(|events| *events == seen[0]));

    drop(watches);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let id = world.launch(&pod, &world.sleeper("main"), &config).await?;
    let mut again = Events::watch(&world.client).await?;
    let events = again.take(2).await?;
    assert_eq!(kinds(&events), [(ContainerCreatedEvent, id.as_str()), (ContainerStartedEvent, &id)]);
    let mut fresh = Events::watch(&world.client).await?;
    world.client.stop(&id, 0).await?;
    for watch in [&mut again, &mut fresh] {
        assert_eq!(kinds(&[watch.next().await?]), [(ContainerStoppedEvent, id.as_str())]);
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_list_anew_and_delays_nobody() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let mut config = world.pod("slow");
    // What is on its way to a client does not wait here: a transport holds some megabytes.
    config.annotations.insert("big".into(), "x".repeat(32 << 10));
    let pod = world.client.run_pod(&config).await?;
    let mut slow = Events::watch(&world.client).await?;
    let mut quick = Events::watch(&world.client).await?;
    let reader = tokio::spawn(async move { quick.take(2 * 700).await });
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..7 {
        let (client, config, pod) = (world.client.clone(), config.clone(), pod.clone());
        let container = world.sleeper(&format!("w{worker}"));
        workers.spawn(async move {
            for _ in 0..100 {
                let id = client.create(&pod, &container, &config).await?;
                client.remove(&id).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    let seen = reader.await??;
    assert!(seen.is_sorted_by(|a, b| a.created_at < b.created_at));
    let end = slow.end().await;
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(end.message().contains("list everything"), "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_daemon_and_the_next_one_goes_on() -> Result<()> {
    let mut world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let (_, id) = world.run(&world.pod("goes-on"), &world.sleeper("main")).await?;
    let mut watch = Events::watch(&world.client).await?;
    let start = Instant::now();
    world.node.stop()?;
    assert!(start.elapsed() < bound(Duration::from_secs(5)), "{:?}", start.elapsed());
    let end = watch.end().await;
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    world.node.launch().await?;
    world.client = world.node.client().await?;
    let mut watch = Events::watch(&world.client).await?;
    world.client.stop(&id, 0).await?;
    let event = watch.next().await?;
    assert_eq!(kinds(std::slice::from_ref(&event)), [(ContainerStoppedEvent, id.as_str())]);
    assert_eq!(world_status(&event).exit_code, 137);
    Ok(())
}
