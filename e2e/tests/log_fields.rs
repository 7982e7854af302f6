//! Every line of the daemon's log says which pod and which container it concerns.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::client::image_spec;
use berth_e2e::eventually;
use berth_e2e::node::Options;
use berth_e2e::process;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::{PodSandboxConfig, PullImageRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// JSON lines of the log that hold this text.
fn lines(world: &World, text: &str) -> Result<Vec<Value>> {
    let log = world.node.log();
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

fn field<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

async fn wait_for(world: &World, text: &str) -> Result<()> {
    eventually(Duration::from_secs(15), async || {
        let log = world.node.log();
        ensure!(log.contains(text), "nothing says {text:?}:\n{log}");
        Ok(())
    })
    .await
}

/// What the life of a pod with failures leaves behind for the assertions.
struct Life {
    pod: String,
    main: String,
    containers: Vec<String>,
}

/// Refused pulls, containers, starts and commands; an end; all in one pod.
async fn failures(world: &World) -> Result<Life> {
    let config = world.pod("logged");
    let pull = PullImageRequest {
        image: Some(image_spec(&world.registry.reference("missing:1"))),
        sandbox_config: Some(config.clone()),
        auth: None,
    };
    ensure!(world.client.images.clone().pull_image(pull).await.is_err());
    let (pod, main) = world.run(&config, &world.sleeper("main")).await?;
    refuse_container(world, &pod, &config).await?;
    let mut broken = world.container("broken", "true");
    broken.command = vec!["/no/such/program".into()];
    let broken = world.client.create(&pod, &broken, &config).await?;
    ensure!(world.client.start(&broken).await.is_err());
    ensure!(world.client.exec(&main, &["sleep", "5"], 1).await.is_err());
    let ending = world.launch(&pod, &world.container("ending", "exit 3"), &config).await?;
    world.client.wait_exited(&ending, Duration::from_secs(10)).await?;
    Ok(Life { pod, main: main.clone(), containers: vec![main, broken, ending] })
}

async fn refuse_container(world: &World, pod: &str, config: &PodSandboxConfig) -> Result<()> {
    let mut absent = world.container("absent", "true");
    absent.image = Some(image_spec("sha256:0000"));
    ensure!(world.client.create(pod, &absent, config).await.is_err());
    Ok(())
}

fn kill_shims(world: &World) -> Result<()> {
    for shim in process::shims(&world.node.state()) {
        kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL)?;
    }
    Ok(())
}

async fn relaunch(world: &mut World) -> Result<()> {
    world.node.launch().await?;
    world.client = world.node.client().await?;
    Ok(())
}

/// Fails unless each line that holds the id of a pod names it.
fn expect_pod(world: &World, id: &str, name: &str) -> Result<()> {
    let lines = lines(world, id)?;
    assert!(!lines.is_empty(), "{name}");
    for line in lines {
        assert_eq!((field(&line, "pod"), field(&line, "pod_id")), (name, id), "{line}");
    }
    Ok(())
}

/// Fails unless each line that holds the id of a container names it, its image and its pod.
fn expect_container(world: &World, id: &str, pod: &str) -> Result<()> {
    for line in lines(world, id)? {
        assert_eq!((field(&line, "pod"), field(&line, "container_id")), (pod, id), "{line}");
        assert!(!field(&line, "container").is_empty() && !field(&line, "image").is_empty(), "{line}");
    }
    Ok(())
}

/// Not run for another runtime, whose log is its own.
fn skipped() -> Result<bool> {
    let other = Runtime::from_env()? == Runtime::Containerd;
    if other {
        println!("not run: this is Berth's own log");
    }
    Ok(other)
}

#[tokio::test]
async fn lines_about_a_pod_have_its_name_through_its_whole_life() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let (config, log) = ("[log]\nformat = \"json\"\n".to_owned(), "info,berth=debug".to_owned());
    let mut world = World::start_with(Options { config, log, ..Options::default() }).await?;
    let life = failures(&world).await?;
    // A crash of the daemon, then of the shim.
    world.node.kill()?;
    relaunch(&mut world).await?;
    kill_shims(&world)?;
    wait_for(&world, "the shim has died").await?;
    ensure!(world.client.exec(&life.main, &["true"], 1).await.is_err());
    // A shim that died while no daemon looked.
    let (second, _) = world.run(&world.pod("second"), &world.sleeper("main")).await?;
    world.node.kill()?;
    kill_shims(&world)?;
    relaunch(&mut world).await?;
    wait_for(&world, "the shim is gone").await?;
    world.client.end_pod(&life.pod).await?;
    world.client.end_pod(&second).await?;

    expect_pod(&world, &life.pod, "e2e/logged")?;
    expect_pod(&world, &second, "e2e/second")?;
    for id in &life.containers {
        expect_container(&world, id, "e2e/logged")?;
    }
    // Each failure is told once, by whom it concerns; the command failed twice.
    for (what, pod, container, times) in [
        ("PullImage failed", "e2e/logged", "", 1),
        ("CreateContainer failed", "e2e/logged", "absent", 1),
        ("StartContainer failed", "e2e/logged", "broken", 1),
        ("ExecSync failed", "e2e/logged", "main", 2),
        ("the shim has died", "e2e/logged", "", 1),
        ("the shim is gone", "e2e/second", "", 1),
    ] {
        let lines = lines(&world, what)?;
        assert_eq!(lines.len(), times, "{what}: {lines:?}");
        for line in lines {
            assert_eq!((field(&line, "pod"), field(&line, "container")), (pod, container), "{line}");
            assert_eq!(field(&line, "level"), "WARN", "{line}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_narrow_filter_loses_lines_and_no_fields() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let log = "off,berth::api::observe=warn".to_owned();
    let world = World::start_with(Options { log, ..Options::default() }).await?;
    let config = world.pod("narrow");
    let (pod, _) = world.run(&config, &world.sleeper("main")).await?;
    refuse_container(&world, &pod, &config).await?;
    let log = world.node.log();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 1, "{log}");
    let expected = format!("CreateContainer{{pod=e2e/narrow pod_id={pod} container=absent image=sha256:0000");
    assert!(lines[0].contains(&expected), "{log}");
    Ok(())
}
