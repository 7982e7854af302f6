//! Requests that cannot be met: the right code, a message that names object and cause, and nothing left behind, so
//! that the same call works once the cause is gone.

use std::time::Duration;

use anyhow::Result;
use berth_e2e::client::{Reply, expect_refusal, image_spec};
use berth_e2e::images::{Layer, catalog};
use berth_e2e::runtime::Runtime;
use berth_e2e::world::{World, security};
use berth_proto::cri::v1::*;
use tonic::Code;

/// Others answer many of these with UNKNOWN; Berth must not.
fn codes(world: &World, ours: &[Code]) -> Vec<Code> {
    let mut codes = ours.to_vec();
    if world.node.runtime() == Runtime::Containerd {
        codes.extend([Code::Unknown, Code::Internal, Code::NotFound]);
    }
    codes
}

fn words<'a>(world: &World, ours: &'a [&'a str]) -> &'a [&'a str] {
    if world.node.runtime() == Runtime::Containerd { &[] } else { ours }
}

#[tokio::test]
async fn unknown_ids_are_not_found() -> Result<()> {
    let world = World::start().await?;
    let id = "fedcba9876543210";
    let not_found = [Code::NotFound];
    expect_refusal(world.client.pod_status(id).await, &not_found, words(&world, &[id]));
    expect_refusal(world.client.status(id).await, &not_found, words(&world, &[id]));
    expect_refusal(world.client.start(id).await, &not_found, words(&world, &[id]));
    expect_refusal(world.client.reopen_log(id).await, &not_found, words(&world, &[id]));
    expect_refusal(world.client.exec(id, &["true"], 1).await, &not_found, words(&world, &[id]));
    let config = world.pod("none");
    expect_refusal(
        world.client.create(id, &world.sleeper("main"), &config).await,
        &codes(&world, &not_found),
        words(&world, &[id]),
    );
    Ok(())
}

#[tokio::test]
async fn empty_ids_and_missing_parts_are_invalid() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd finds an empty id, or panics");
        return Ok(());
    }
    let invalid = [Code::InvalidArgument, Code::NotFound];
    expect_refusal(world.client.pod_status("").await, &invalid, &["id"]);
    expect_refusal(world.client.status("").await, &invalid, &["id"]);
    expect_refusal(world.client.start("").await, &invalid, &["id"]);
    let invalid = [Code::InvalidArgument];
    expect_refusal(world.client.run_pod(&PodSandboxConfig::default()).await, &invalid, &["metadata"]);
    let request = RunPodSandboxRequest::default();
    expect_refusal(world.client.runtime.clone().run_pod_sandbox(request).await, &invalid, &["config"]);
    let config = world.pod("parts");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("main");
    spec.metadata = None;
    expect_refusal(world.client.create(&pod, &spec, &config).await, &invalid, &["metadata"]);
    let mut spec = world.sleeper("main");
    spec.image = None;
    expect_refusal(world.client.create(&pod, &spec, &config).await, &invalid, &["image"]);
    expect_refusal(world.client.exec(&pod, &[], 1).await, &[Code::InvalidArgument, Code::NotFound], &[]);
    world.launch(&pod, &world.sleeper("main"), &config).await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_handler_is_refused_by_name() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;
    let refused = codes(&world, &[Code::InvalidArgument, Code::NotFound]);
    let reply = world.client.run_pod_with(&world.pod("handler"), "no-such-handler").await;
    expect_refusal(reply, &refused, &["no-such-handler"]);
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_command_that_cannot_run_fails_the_start_with_the_reason() -> Result<()> {
    let world = World::start().await?;
    let layer = Layer::default()
        .file("plain", 0o644, "#!/bin/sh\n")
        .file("script", 0o755, "#!/no/such/shell\n")
        .file("garbage", 0o755, vec![0x7f, b'N', b'O', b'P', 0, 1, 2, 3])
        .dir("dir");
    let name = world.registry.publish("commands", "latest", &catalog::busybox()?.layer(layer))?;
    world.client.pull(&name).await?;
    let config = world.pod("commands");
    let pod = world.client.run_pod(&config).await?;
    for (command, cause) in [
        ("/not/there", "o such file or directory"),
        ("not-in-path", "not found"),
        ("/plain", "ermission denied"),
        ("/script", "o such file or directory"),
        ("/garbage", "xec format error"),
        ("/dir", "ermission denied"),
    ] {
        let mut spec = world.container(&format!("c{}", command.replace('/', "-")), "");
        (spec.image, spec.command) = (Some(image_spec(&name)), vec![command.into()]);
        let id = world.client.create(&pod, &spec, &config).await?;
        let started = world.client.start(&id).await;
        if started.is_ok() && world.node.runtime() == Runtime::Containerd {
            println!("containerd starts {command}");
            world.client.remove(&id).await?;
            continue;
        }
        let refused = [Code::FailedPrecondition, Code::InvalidArgument, Code::NotFound, Code::Unknown];
        expect_refusal(started, &refused, words(&world, &[command, cause]));
        let status = world.client.status(&id).await?;
        assert_eq!(
            (status.state(), &*status.reason),
            (ContainerState::ContainerExited, "StartError"),
            "{command}"
        );
        assert_ne!(status.exit_code, 0);
        world.client.remove(&id).await?;
    }
    world.launch(&pod, &world.sleeper("fine"), &config).await?;
    Ok(())
}

/// Creates and starts a container with this change, in a pod of its own that is gone afterwards.
async fn attempt(world: &World, change: impl FnOnce(&mut ContainerConfig)) -> Reply<String> {
    let config = world.pod("lacks");
    let mut spec = world.container("main", "true");
    change(&mut spec);
    let pod = world.client.run_pod(&config).await?;
    let reply = world.launch(&pod, &spec, &config).await;
    world.client.end_pod(&pod).await?;
    reply
}

fn lacking(world: &World) -> Vec<Code> {
    codes(world, &[Code::FailedPrecondition, Code::InvalidArgument, Code::NotFound])
}

#[tokio::test]
async fn an_unknown_image_user_or_group_is_named() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;
    let image = "127.0.0.1:1/no/such:image";
    let reply = attempt(&world, |spec| spec.image = Some(image_spec(image))).await;
    expect_refusal(reply, &lacking(&world), words(&world, &["no/such"]));
    let reply = attempt(&world, |spec| security(spec).run_as_username = "nobody-here".into()).await;
    expect_refusal(reply, &lacking(&world), words(&world, &["nobody-here"]));
    let group = Some(Int64Value { value: 5 });
    let reply = attempt(&world, |spec| security(spec).run_as_group = group).await;
    expect_refusal(reply, &lacking(&world), words(&world, &["group"]));
    attempt(&world, |_| ()).await?;
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn a_path_that_is_missing_or_of_the_wrong_kind_is_named() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;
    let reply = attempt(&world, |spec| {
        security(spec).seccomp = Some(SecurityProfile {
            profile_type: security_profile::ProfileType::Localhost as i32,
            localhost_ref: "/no/such/profile.json".into(),
        });
    })
    .await;
    expect_refusal(reply, &lacking(&world), words(&world, &["/no/such/profile.json"]));
    let reply = attempt(&world, |spec| {
        let (host_path, container_path) = ("/dev/no-such-device".into(), "/dev/x".into());
        spec.devices = vec![Device { host_path, container_path, permissions: "rw".into() }];
    })
    .await;
    expect_refusal(reply, &lacking(&world), words(&world, &["/dev/no-such-device"]));
    let reply = attempt(&world, |spec| spec.working_dir = "/etc/passwd".into()).await;
    expect_refusal(reply, &lacking(&world), words(&world, &["/etc/passwd"]));
    if world.node.runtime() == Runtime::Berth {
        let reply = attempt(&world, |spec| {
            let (host_path, container_path) = ("/no/such/volume".into(), "/data".into());
            spec.mounts = vec![Mount { host_path, container_path, ..Default::default() }];
        })
        .await;
        expect_refusal(reply, &lacking(&world), &["/no/such/volume"]);
    }
    attempt(&world, |_| ()).await?;
    world.expect_nothing_left(&before).await
}

#[tokio::test]
async fn log_paths_stay_in_the_pods_log_directory() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: containerd takes any path");
        return Ok(());
    }
    let config = world.pod("paths");
    let pod = world.client.run_pod(&config).await?;
    for path in ["../escape.log", "a/../../escape.log", "/absolute.log"] {
        let mut spec = world.container("main", "true");
        spec.log_path = path.into();
        expect_refusal(world.client.create(&pod, &spec, &config).await, &[Code::InvalidArgument], &[path]);
    }
    let mut relative = world.pod("relative");
    relative.log_directory = "not/absolute".into();
    expect_refusal(world.client.run_pod(&relative).await, &[Code::InvalidArgument], &["not/absolute"]);
    world.launch(&pod, &world.sleeper("fine"), &config).await?;
    Ok(())
}

#[tokio::test]
async fn a_memory_limit_below_what_a_process_needs_is_told() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("small");
    let pod = world.client.run_pod(&config).await?;
    let mut spec = world.sleeper("main");
    spec.linux.as_mut().unwrap().resources =
        Some(LinuxContainerResources { memory_limit_in_bytes: 4096, ..Default::default() });
    match world.launch(&pod, &spec, &config).await {
        Err(status) => assert!(!status.message().is_empty()),
        Ok(id) => {
            let status = world.client.wait_exited(&id, Duration::from_secs(10)).await?;
            assert_eq!(status.reason, "OOMKilled");
        }
    }
    for container in world.client.containers(None).await? {
        world.client.remove(&container.id).await?;
    }
    world.launch(&pod, &world.sleeper("main"), &config).await?;
    Ok(())
}

#[tokio::test]
async fn a_stopped_pod_takes_no_container() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("stopped");
    let pod = world.client.run_pod(&config).await?;
    world.client.stop_pod(&pod).await?;
    let refused = codes(&world, &[Code::FailedPrecondition]);
    expect_refusal(world.client.create(&pod, &world.sleeper("main"), &config).await, &refused, &[]);
    Ok(())
}

#[tokio::test]
async fn a_container_starts_once() -> Result<()> {
    let world = World::start().await?;
    let config = world.pod("once");
    let (_, id) = world.run(&config, &world.container("main", "exit 0")).await?;
    world.client.wait_exited(&id, Duration::from_secs(10)).await?;
    expect_refusal(world.client.start(&id).await, &codes(&world, &[Code::FailedPrecondition]), &[]);
    Ok(())
}
