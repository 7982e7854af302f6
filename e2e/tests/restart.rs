//! The daemon dies and comes back: nothing that runs notices, and nothing is forgotten.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::bound;
use berth_e2e::logs;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(10);

/// A crash, `downtime`, and a new daemon.
async fn crash(world: &mut World, downtime: Duration) -> Result<()> {
    world.node.kill()?;
    tokio::time::sleep(downtime).await;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    Ok(())
}

/// The host's process id of a container's first process.
fn pid_on_host(marker: &str) -> Result<String> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).replace('\0', " ").contains(marker) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no process has {marker:?} in its command")
}

#[tokio::test]
async fn a_running_container_keeps_process_log_and_address() -> Result<()> {
    let mut world = World::start().await?;
    let config = world.pod("keeps");
    let marker = format!("marker-{}", std::process::id());
    let script = format!(": {marker}; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done");
    let (pod, id) = world.run(&config, &world.container("main", &script)).await?;
    let before =
        (world.client.pod_status(&pod).await?, world.client.status(&id).await?, pid_on_host(&marker)?);

    crash(&mut world, Duration::from_millis(500)).await?;

    let after =
        (world.client.pod_status(&pod).await?, world.client.status(&id).await?, pid_on_host(&marker)?);
    assert_eq!(before.2, after.2, "the process is another one");
    assert_eq!(before.0, after.0);
    assert_eq!(before.1, after.1);
    world.client.exec(&id, &["true"], 10).await?;
    world.client.stop(&id, 0).await?;
    let numbers: Vec<u32> =
        logs::text(&after.1.log_path)?.lines().map(str::parse).collect::<Result<_, _>>()?;
    assert!(numbers.len() > 8 && numbers.iter().copied().eq(1..=numbers.len() as u32), "{numbers:?}");
    Ok(())
}

#[tokio::test]
async fn an_exit_during_the_downtime_is_told_with_its_code_and_time() -> Result<()> {
    let mut world = World::start().await?;
    let config = world.pod("exits");
    let (_, id) = world.run(&config, &world.container("main", "sleep 1; echo last; exit 42")).await?;
    let started = world.client.status(&id).await?.started_at;
    crash(&mut world, Duration::from_secs(2)).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("the rest is not run: containerd loses the code");
        return Ok(());
    }
    assert_eq!((status.exit_code, status.reason.as_str()), (42, "Error"));
    let lived = Duration::from_nanos((status.finished_at - started).unsigned_abs());
    assert!(lived > Duration::from_millis(900) && lived < bound(Duration::from_millis(1900)), "{lived:?}");
    assert_eq!(logs::text(&status.log_path)?, "last\n");
    Ok(())
}

#[tokio::test]
async fn every_state_is_as_it_was() -> Result<()> {
    let mut world = World::start().await?;
    let config = world.pod("states");
    let pod = world.client.run_pod(&config).await?;
    let created = world.client.create(&pod, &world.sleeper("created"), &config).await?;
    let running = world.launch(&pod, &world.sleeper("running"), &config).await?;
    let exited = world.launch(&pod, &world.container("exited", "exit 9"), &config).await?;
    world.client.wait_exited(&exited, PATIENCE).await?;
    let stopped = world.client.run_pod(&world.pod("stopped")).await?;
    world.client.stop_pod(&stopped).await?;
    let look = async |world: &World| -> Result<_> {
        let mut statuses = Vec::new();
        for id in [&created, &running, &exited] {
            statuses.push(world.client.status(id).await?);
        }
        let pods = (world.client.pod_status(&pod).await?, world.client.pod_status(&stopped).await?.state());
        Ok((statuses, pods))
    };
    let before = look(&world).await?;
    crash(&mut world, Duration::ZERO).await?;
    assert_eq!(look(&world).await?, before);

    world.client.start(&created).await?;
    assert_eq!(world.client.status(&created).await?.state(), ContainerState::ContainerRunning);
    world.launch(&pod, &world.sleeper("new"), &config).await?;
    Ok(())
}

#[tokio::test]
async fn what_ran_before_a_crash_is_removed_without_a_trace_after_it() -> Result<()> {
    let mut world = World::start().await?;
    let before = world.settled_census().await?;
    let (pod, _) = world.run(&world.pod("trace"), &world.sleeper("main")).await?;
    crash(&mut world, Duration::ZERO).await?;
    world.client.end_pod(&pod).await?;
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn twenty_pods_are_listed_again_within_two_seconds() -> Result<()> {
    let mut world = World::start().await?;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(world.run(&world.pod(&format!("pod-{number}")), &world.sleeper("main")).await?);
    }
    world.node.kill()?;
    let start = Instant::now();
    world.node.launch().await?;
    world.client = world.node.client().await?;
    let filter = |state: ContainerState| ContainerFilter {
        state: Some(ContainerStateValue { state: state as i32 }),
        ..Default::default()
    };
    let running = world.client.containers(Some(filter(ContainerState::ContainerRunning))).await?;
    let took = start.elapsed();
    assert_eq!((running.len(), world.client.pods(None).await?.len()), (20, 20));
    assert!(took < bound(Duration::from_secs(2)) || world.node.runtime() == Runtime::Containerd, "{took:?}");
    Ok(())
}

#[tokio::test]
async fn a_retry_after_a_crash_in_the_middle_succeeds() -> Result<()> {
    let mut world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd leaves a half-made pod");
        return Ok(());
    }
    let before = world.settled_census().await?;
    for delay in [0, 1, 2, 4, 8, 16, 32] {
        let config = world.pod(&format!("crash-{delay}"));
        let container = world.sleeper("main");
        let client = world.client.clone();
        let (pod_config, registry_image) = (config.clone(), container.clone());
        let call = tokio::spawn(async move {
            let pod = client.run_pod(&pod_config).await?;
            let id = client.create(&pod, &registry_image, &pod_config).await?;
            client.start(&id).await
        });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        crash(&mut world, Duration::ZERO).await?;
        let _ = call.await;
        // The kubelet asks again: the same pod, or the next attempt of it.
        let pod = world.client.run_pod(&config).await?;
        let id = world.client.create(&pod, &container, &config).await?;
        if world.client.status(&id).await?.state() == ContainerState::ContainerCreated {
            world.client.start(&id).await?;
        }
        world.client.exec(&id, &["true"], 10).await?;
        world.client.end_all_pods().await?;
    }
    world.expect_nothing_left(&before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_ends_when_it_is_told_to_though_clients_are_connected() -> Result<()> {
    let mut world = World::start().await?;
    let (_, id) = world.run(&world.pod("stays"), &world.sleeper("main")).await?;
    let _idle = world.node.client().await?;
    let start = Instant::now();
    world.node.stop()?;
    assert!(start.elapsed() < bound(Duration::from_secs(5)), "{:?}", start.elapsed());
    world.node.launch().await?;
    world.client = world.node.client().await?;
    world.client.exec(&id, &["true"], 10).await?;
    Ok(())
}

#[tokio::test]
async fn signals_that_a_parent_had_blocked_still_end_it() -> Result<()> {
    let mut world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: Go's runtime unblocks them by itself");
        return Ok(());
    }
    world.node.stop()?;
    let blocked = SigSet::from(Signal::SIGTERM);
    // Whoever is spawned inherits what this thread blocks; a test has its own.
    blocked.thread_block()?;
    let launched = world.node.launch().await;
    blocked.thread_unblock()?;
    launched?;
    world.node.stop()?;
    world.node.launch().await
}

/// What the daemon tells systemd, as systemd would read it.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_when_the_daemon_serves_and_when_it_stops() -> Result<()> {
    let mut world = World::start().await?;
    if world.node.runtime() != Runtime::Berth {
        println!("not run: it is about what Berth's unit relies on");
        return Ok(());
    }
    world.node.stop()?;
    let path = world.node.scratch().join("notify");
    let told = tokio::net::UnixDatagram::bind(&path)?;
    let next = async || -> Result<String> {
        let mut buffer = [0; 1024];
        let received = tokio::time::timeout(bound(Duration::from_secs(30)), told.recv(&mut buffer));
        let length = received.await.context("systemd is told nothing")??;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let mut daemon =
        tokio::process::Command::from(world.node.command()?).env("NOTIFY_SOCKET", &path).spawn()?;
    let first = next().await?;
    assert!(first.starts_with("READY=1\n") && first.contains("STATUS=serving "), "{first:?}");
    // It is true: the socket answers.
    world.node.client().await?.pods(None).await?;
    let pid = daemon.id().context("it has ended")?;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)?;
    assert_eq!(next().await?, "STOPPING=1\n");
    assert!(daemon.wait().await?.success());
    Ok(())
}
