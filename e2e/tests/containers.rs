//! Containers: their life, how they end, and what is told of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use berth_e2e::bound;
use berth_e2e::client::{expect_refusal, image_spec};
use berth_e2e::images::catalog;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_container_is_created_runs_and_exits() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("life");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.container("main", "sleep 0.3; exit 3");
    spec.labels.insert("app".into(), "web".into());
    spec.annotations.insert("note".into(), "x".into());

    let id = world.client.create(&pod, &spec, &config).await?;
    let created = world.client.status(&id).await?;
    assert_eq!(created.state(), ContainerState::ContainerCreated);
    assert!(created.created_at > 0 && created.started_at == 0 && created.finished_at == 0, "{created:?}");
    assert_eq!((&created.labels, &created.annotations), (&spec.labels, &spec.annotations));
    assert_eq!(created.metadata, spec.metadata);
    assert!(
        created.log_path.starts_with('/') && created.log_path.ends_with("/main.log"),
        "{}",
        created.log_path
    );

    world.client.start(&id).await?;
    let running = world.client.status(&id).await?;
    assert_eq!(running.state(), ContainerState::ContainerRunning);
    assert!(running.started_at >= created.created_at, "{running:?}");

    let exited = world.client.wait_exited(&id, PATIENCE).await?;
    assert_eq!((exited.exit_code, exited.reason.as_str()), (3, "Error"));
    assert!(exited.finished_at > exited.started_at, "{exited:?}");
    Ok(())
}

#[tokio::test]
async fn an_end_without_error_is_completed_and_a_signal_is_128_more() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("ends");
    let pod = world.client.run_pod(&config).await?;
    for (name, script, code, reason) in [
        ("ok", "exit 0", 0, "Completed"),
        ("last", "exit 255", 255, "Error"),
        ("term", "sh -c 'kill -TERM $$'; exit $?", 143, "Error"),
    ] {
        let id = world.launch(&pod, &world.container(name, script), &config).await?;
        let status = world.client.wait_exited(&id, PATIENCE).await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_container_that_uses_too_much_memory_is_oom_killed() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("oom");
    let mut spec = world.container("main", "dd if=/dev/zero of=/dev/null bs=40M; sleep 100");
    spec.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 15 << 20,
        memory_swap_limit_in_bytes: 15 << 20,
        ..Default::default()
    });
    spec.command = vec!["dd".into(), "if=/dev/zero".into(), "of=/dev/null".into(), "bs=40M".into()];
    let (_, id) = world.run(&config, &spec).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    Ok(())
}

#[tokio::test]
async fn stop_sends_the_signal_and_kills_after_the_grace_period() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("grace");
    let pod = world.client.run_pod(&config).await?;
    let polite = world.launch(&pod, &world.sleeper("polite"), &config).await?;
    let deaf = world.launch(&pod, &world.container("deaf", "trap '' TERM; sleep 1000"), &config).await?;
    tokio::time::sleep(bound(Duration::from_millis(300))).await;

    let start = Instant::now();
    world.client.stop(&polite, 30).await?;
    assert!(start.elapsed() < bound(Duration::from_secs(5)));
    assert_eq!(world.client.status(&polite).await?.exit_code, 0);

    let start = Instant::now();
    world.client.stop(&deaf, 1).await?;
    assert!(start.elapsed() >= Duration::from_millis(950) && start.elapsed() < bound(Duration::from_secs(5)));
    let status = world.client.status(&deaf).await?;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));

    world.client.stop(&deaf, 1).await?;
    world.client.stop("0123456789abcdef", 1).await?;
    Ok(())
}

#[tokio::test]
async fn stop_uses_the_images_signal() -> Result<()> {
    let world = World::start().await?;
    let mut image = catalog::busybox()?;
    image.run.stop_signal = "SIGUSR1".into();
    let name = world.registry.publish("usr1", "latest", &image)?;
    world.client.pull(&name).await?;
    let mut spec = world.container("main", "trap 'exit 11' USR1; while :; do sleep 0.1; done");
    spec.image = Some(image_spec(&name));
    let (_, id) = world.run(&world.pod("signal"), &spec).await?;
    tokio::time::sleep(bound(Duration::from_millis(300))).await;
    world.client.stop(&id, 20).await?;
    assert_eq!(world.client.status(&id).await?.exit_code, 11);
    Ok(())
}

#[tokio::test]
async fn remove_can_be_said_twice_and_of_a_running_container() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("remove");
    let (pod, id) = world.run(&config, &world.sleeper("main")).await?;
    for _ in 0..2 {
        world.client.remove(&id).await?;
    }
    expect_refusal(world.client.status(&id).await, &[Code::NotFound], &[]);
    assert!(world.client.containers(None).await?.is_empty());
    // The name is free again.
    world.launch(&pod, &world.sleeper("main"), &config).await?;
    Ok(())
}

#[tokio::test]
async fn containers_are_found_by_id_pod_state_and_label() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("one");
    let (pod, running) = world.run(&config, &world.sleeper("running")).await?;
    let mut spec = world.sleeper("created");
    spec.labels = BTreeMap::from([("color".into(), "red".into())]);
    let created = world.client.create(&pod, &spec, &config).await?;
    let (_, other) = world.run(&world.pod("two"), &world.sleeper("other")).await?;

    let find = async |filter| -> Result<Vec<String>> {
        let found = world.client.containers(Some(filter)).await?;
        let mut ids: Vec<_> = found.into_iter().map(|container| container.id).collect();
        ids.sort();
        Ok(ids)
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<_> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    let by_pod = ContainerFilter { pod_sandbox_id: pod.clone(), ..Default::default() };
    assert_eq!(find(by_pod).await?, sorted(&[&running, &created]));
    let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning as i32 });
    assert_eq!(find(ContainerFilter { state, ..Default::default() }).await?, sorted(&[&running, &other]));
    let by_id = ContainerFilter { id: other[..12].into(), ..Default::default() };
    assert_eq!(find(by_id).await?, sorted(&[&other]));
    let red = ContainerFilter { label_selector: spec.labels.clone(), ..Default::default() };
    assert_eq!(find(red).await?, sorted(&[&created]));
    Ok(())
}

#[tokio::test]
async fn two_containers_of_one_image_write_apart() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("apart");
    let pod = world.client.run_pod(&config).await?;
    let one = world.launch(&pod, &world.sleeper("one"), &config).await?;
    let two = world.launch(&pod, &world.sleeper("two"), &config).await?;
    world.client.shell(&one, "echo mine > /file; rm /etc/group; echo x >> /etc/passwd").await?;
    let seen =
        world.client.shell(&two, "ls /file 2>&1; ls /etc/group; grep -c '^x$' /etc/passwd; true").await?;
    assert!(
        seen.contains("No such file") && seen.contains("/etc/group") && seen.trim().ends_with('0'),
        "{seen}"
    );
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_container_is_in_the_hosts_mount_table() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd mounts on the host");
        return Ok(());
    }
    let config = world.pod("mounts");
    let pod = world.client.run_pod(&config).await?;
    let table = || -> Result<Vec<String>> {
        let table = std::fs::read_to_string("/proc/1/mountinfo")?;
        let scratch = world.node.scratch().to_string_lossy().into_owned();
        Ok(table.lines().filter(|line| line.contains(&scratch)).map(str::to_owned).collect())
    };
    let before = table()?;
    world.launch(&pod, &world.sleeper("main"), &config).await?;
    assert_eq!(table()?, before);
    Ok(())
}

#[tokio::test]
async fn command_args_env_and_workdir_replace_the_images() -> Result<()> {
    let world = World::start().await?;
    let mut image = catalog::busybox()?;
    image.run.entrypoint = vec!["echo".into(), "entry".into()];
    image.run.cmd = vec!["cmd".into()];
    image.run.env.push("FROM=image".into());
    image.run.working_dir = "/tmp".into();
    let name = world.registry.publish("entry", "latest", &image)?;
    world.client.pull(&name).await?;
    let config = world.pod("command");
    let pod = world.client.run_pod(&config).await?;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (number, command, args, expected) in [
        (0, words(&[]), words(&[]), "entry cmd"),
        (1, words(&[]), words(&["args"]), "entry args"),
        (2, words(&["sh", "-c", "echo $FROM $0; pwd"]), words(&[]), "image sh\n/tmp"),
        (3, words(&["sh", "-c", "echo $FROM $0"]), words(&["zero"]), "image zero"),
    ] {
        let mut spec = world.container(&format!("c{number}"), "");
        (spec.image, spec.command, spec.args) = (Some(image_spec(&name)), command, args);
        let id = world.launch(&pod, &spec, &config).await?;
        let status = world.client.wait_exited(&id, PATIENCE).await?;
        let log = berth_e2e::logs::text(&status.log_path)?;
        assert_eq!(log.trim(), expected, "{number}");
    }
    let mut spec = world.container("own", "echo $FROM; pwd");
    spec.image = Some(image_spec(&name));
    spec.envs = vec![KeyValue { key: "FROM".into(), value: "container".into() }];
    spec.working_dir = "/made/on/the/way".into();
    let id = world.launch(&pod, &spec, &config).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    assert_eq!(berth_e2e::logs::text(&status.log_path)?, "container\n/made/on/the/way\n");
    Ok(())
}

#[tokio::test]
async fn limits_are_set_in_the_containers_cgroup() -> Result<()> {
    let world = World::start().await?;
    let mut spec = world.sleeper("main");
    spec.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        cpuset_cpus: "0".into(),
        ..Default::default()
    });
    let (_, id) = world.run(&world.pod("limits"), &spec).await?;
    let read = async |old: &str, new: &str| {
        let script = format!("cat /sys/fs/cgroup/{old} 2>/dev/null || cat /sys/fs/cgroup/{new}");
        world.client.shell(&id, &script).await.map(|text| text.trim().to_owned())
    };
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max").await?, (64 << 20).to_string());
    let quota = read("cpu/cpu.cfs_quota_us", "cpu.max").await?;
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    assert_eq!(read("cpuset/cpuset.cpus", "cpuset.cpus").await?, "0");
    Ok(())
}

#[tokio::test]
async fn a_retry_of_the_same_container_gives_the_same_container() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd refuses a name that is taken");
        return Ok(());
    }
    let config = world.pod("retry");
    let pod = world.client.run_pod(&config).await?;
    let id = world.client.create(&pod, &world.sleeper("main"), &config).await?;
    assert_eq!(world.client.create(&pod, &world.sleeper("main"), &config).await?, id);
    assert_eq!(world.client.containers(None).await?.len(), 1);
    Ok(())
}
