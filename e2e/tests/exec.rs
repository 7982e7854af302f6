//! ExecSync: output, exit codes, timeouts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use berth_e2e::client::expect_refusal;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};
use berth_proto::cri::v1::{Int64Value, KeyValue};
use tonic::Code;

#[tokio::test]
async fn output_and_exit_code_come_back() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("exec"), &world.sleeper("main")).await?;
    let reply = world.client.exec(&id, &["sh", "-c", "printf out; printf err >&2; exit 5"], 10).await?;
    assert_eq!((&*reply.stdout, &*reply.stderr, reply.exit_code), (&b"out"[..], &b"err"[..], 5));
    let reply = world.client.exec(&id, &["sh", "-c", "kill -9 $$"], 10).await?;
    assert_eq!(reply.exit_code, 137);
    let bytes = world.client.exec(&id, &["head", "-c", "300000", "/dev/zero"], 10).await?.stdout;
    assert!(bytes.len() == 300_000 && bytes.iter().all(|byte| *byte == 0));
    Ok(())
}

#[tokio::test]
async fn a_command_runs_as_the_container_does() -> Result<()> {
    let world = World::start().await?;
    let mut spec = world.sleeper("main");
    spec.envs = vec![KeyValue { key: "COLOR".into(), value: "red".into() }];
    spec.working_dir = "/tmp".into();
    let security = spec.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_user = Some(Int64Value { value: 1000 });
    security.supplemental_groups = vec![7];
    let (_, id) = world.run(&world.pod("same"), &spec).await?;
    let seen = world.client.shell(&id, "echo $COLOR $(pwd) $(id -u) $(id -G)").await?;
    assert_eq!(seen, "red /tmp 1000 1000 7 50000\n");
    let cgroups = world
        .client
        .shell(&id, "[ \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" ] && echo same")
        .await?;
    assert_eq!(cgroups, "same\n");
    Ok(())
}

#[tokio::test]
async fn a_timeout_kills_the_command_and_all_it_started() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd waits for whoever holds the pipe");
        return Ok(());
    }
    let (_, id) =
        world.run(&world.pod("timeout"), &world.container("main", "exec tail -f /dev/null")).await?;
    let start = Instant::now();
    let script = "trap '' TERM; sleep 4321; sleep 4321";
    let reply = world.client.exec(&id, &["sh", "-c", script], 1).await;
    expect_refusal(reply, &[Code::DeadlineExceeded], &["1 s"]);
    assert!(start.elapsed() >= Duration::from_millis(950) && start.elapsed() < bound(Duration::from_secs(5)));
    // The container's own init reaps nobody: what is dead may still be listed.
    let alive = "for p in $(pgrep sleep); do grep State: /proc/$p/status; done | grep -v Z || true";
    assert_eq!(world.client.shell(&id, alive).await?, "");
    Ok(())
}

#[tokio::test]
async fn a_timeout_reaches_sessions_of_their_own_and_spares_the_container() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd kills the first process only");
        return Ok(());
    }
    let script = "setsid sleep 1111 & exec sleep 2222";
    let (_, id) = world.run(&world.pod("sessions"), &world.container("main", script)).await?;
    let script = "trap '' TERM HUP; setsid sh -c 'sleep 4321 & setsid sleep 4321 & wait' & (setsid sleep 4321 &); \
                  (sleep 4321 &); sleep 4321; sleep 4321";
    let reply = world.client.exec(&id, &["sh", "-c", script], 1).await;
    expect_refusal(reply, &[Code::DeadlineExceeded], &["1 s"]);
    let alive = "for p in $(pgrep sleep); do grep -q 'State:.Z' /proc/$p/status || tr '\\0' ' ' </proc/$p/cmdline; done";
    assert_eq!(world.client.shell(&id, alive).await?, "sleep 2222 sleep 1111 ");
    Ok(())
}

#[tokio::test]
async fn a_command_ends_with_its_daemon_and_the_container_does_not() -> Result<()> {
    let mut world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd's commands live on");
        return Ok(());
    }
    let (_, id) = world.run(&world.pod("orphan"), &world.container("main", "exec sleep 2222")).await?;
    let (client, container) = (world.client.clone(), id.clone());
    let command = tokio::spawn(async move {
        client.exec(&container, &["sh", "-c", "touch /tmp/up; setsid sleep 4321 & sleep 4321"], 0).await
    });
    eventually(Duration::from_secs(10), async || {
        let up = world.client.exec(&id, &["test", "-e", "/tmp/up"], 10).await?;
        ensure!(up.exit_code == 0, "the command does not begin");
        Ok(())
    })
    .await?;
    world.node.kill()?;
    assert!(command.await?.is_err());
    world.node.launch().await?;
    let client = world.node.client().await?;
    let alive = "for p in $(pgrep sleep); do grep -q 'State:.Z' /proc/$p/status || tr '\\0' ' ' </proc/$p/cmdline; done";
    assert_eq!(client.shell(&id, alive).await?, "sleep 2222 ");
    Ok(())
}

#[tokio::test]
async fn output_beyond_the_limit_is_dropped_and_the_command_is_not_disturbed() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("limit"), &world.sleeper("main")).await?;
    let script = "head -c 40000000 /dev/zero; head -c 3000 /dev/zero >&2; exit 7";
    let reply = world.client.exec(&id, &["sh", "-c", script], 60).await?;
    assert_eq!((reply.exit_code, reply.stderr.len()), (7, 3000));
    assert!(reply.stdout.len() > 16_700_000 && reply.stdout.len() < 16 << 20, "{}", reply.stdout.len());
    Ok(())
}

#[tokio::test]
async fn a_background_child_does_not_hold_the_call() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd waits for whoever holds the pipe");
        return Ok(());
    }
    let (_, id) = world.run(&world.pod("background"), &world.sleeper("main")).await?;
    let start = Instant::now();
    let reply = world.client.exec(&id, &["sh", "-c", "sleep 60 & echo started"], 20).await?;
    assert_eq!(String::from_utf8_lossy(&reply.stdout), "started\n");
    assert!(start.elapsed() < bound(Duration::from_secs(15)), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn many_commands_run_at_once() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("many"), &world.sleeper("main")).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..24 {
        let (client, id) = (world.client.clone(), id.clone());
        tasks.spawn(async move {
            client.exec(&id, &["sh", "-c", &format!("echo {number}; exit {number}")], 30).await
        });
    }
    while let Some(reply) = tasks.join_next().await {
        let reply = reply??;
        assert_eq!(String::from_utf8_lossy(&reply.stdout).trim(), reply.exit_code.to_string());
    }
    Ok(())
}

#[tokio::test]
async fn only_a_running_container_takes_commands() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("states");
    let pod = world.client.run_pod(&config).await?;
    let id = world.client.create(&pod, &world.sleeper("main"), &config).await?;
    let refused = [Code::FailedPrecondition, Code::Unknown];
    expect_refusal(world.client.exec(&id, &["true"], 5).await, &refused, &[]);
    world.client.start(&id).await?;
    world.client.exec(&id, &["true"], 5).await?;
    world.client.stop(&id, 0).await?;
    expect_refusal(world.client.exec(&id, &["true"], 5).await, &refused, &[]);
    expect_refusal(
        world.client.exec("0123456789abcdef", &["true"], 5).await,
        &[Code::NotFound],
        &["0123456789abcdef"],
    );
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() -> Result<()> {
    let world = World::start().await?;
    let (_, id) = world.run(&world.pod("missing"), &world.sleeper("main")).await?;
    let reply = world.client.exec(&id, &["/no/such/program"], 5).await;
    let refused =
        [Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition, Code::Unknown, Code::Internal];
    expect_refusal(reply, &refused, &["/no/such/program", "o such file or directory"]);
    world.client.exec(&id, &["true"], 5).await?;
    Ok(())
}
