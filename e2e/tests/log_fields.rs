//! Every line of the daemon's log says which pod and which container it concerns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::bound;
use berth_e2e::client::image_spec;
use berth_e2e::node::Options;
use berth_e2e::process;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
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
    let end = Instant::now() + bound(Duration::from_secs(15));
    while !world.node.log().contains(text) {
        ensure!(Instant::now() < end, "nothing says {text:?}:\n{}", world.node.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn lines_about_a_pod_have_its_name_through_its_whole_life() -> Result<()> {
    if Runtime::from_env()? == Runtime::Containerd {
        println!("not run: this is Berth's own log");
        return Ok(());
    }
    let config = "[log]\nformat = \"json\"\n".to_owned();
    let mut world =
        World::start_with(Options { config, log: "info,berth=debug".into(), ..Options::default() }).await?;
    let config = world.pod("logged");
    let mut ids = Vec::new();

    // Refused pulls, containers and starts.
    let pull = berth_proto::cri::v1::PullImageRequest {
        image: Some(image_spec(&world.registry.reference("missing:1"))),
        sandbox_config: Some(config.clone()),
        auth: None,
    };
    ensure!(world.client.images.clone().pull_image(pull).await.is_err());
    let (pod, main) = world.run(&config, &world.sleeper("main")).await?;
    let mut absent = world.container("absent", "true");
    absent.image = Some(image_spec("sha256:0000"));
    ensure!(world.client.create(&pod, &absent, &config).await.is_err());
    let mut broken = world.container("broken", "true");
    broken.command = vec!["/no/such/program".into()];
    let broken = world.client.create(&pod, &broken, &config).await?;
    ensure!(world.client.start(&broken).await.is_err());
    ensure!(world.client.exec(&main, &["sleep", "5"], 1).await.is_err());
    let ending = world.launch(&pod, &world.container("ending", "exit 3"), &config).await?;
    world.client.wait_exited(&ending, Duration::from_secs(10)).await?;
    ids.extend([main.clone(), broken, ending]);

    // A crash of the daemon, then of the shim.
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    let shim = *process::shims(&world.node.state()).first().context("no shim")?;
    kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL)?;
    wait_for(&world, "the shim has died").await?;
    ensure!(world.client.exec(&main, &["true"], 1).await.is_err());

    // A shim that died while no daemon looked.
    let (second, _) = world.run(&world.pod("second"), &world.sleeper("main")).await?;
    let shims = process::shims(&world.node.state());
    world.node.kill()?;
    for shim in shims {
        kill(Pid::from_raw(shim.cast_signed()), Signal::SIGKILL)?;
    }
    world.node.launch().await?;
    world.client = world.node.client().await?;
    wait_for(&world, "the shim is gone").await?;
    world.client.end_pod(&pod).await?;
    world.client.end_pod(&second).await?;

    let about = [(&pod, "e2e/logged"), (&second, "e2e/second")];
    for (id, name) in about {
        let lines = lines(&world, id)?;
        assert!(!lines.is_empty(), "{name}");
        for line in lines {
            assert_eq!((field(&line, "pod"), field(&line, "pod_id")), (name, id.as_str()), "{line}");
        }
    }
    for id in &ids {
        let lines = lines(&world, id)?;
        for line in &lines {
            assert_eq!(
                (field(line, "pod"), field(line, "container_id")),
                ("e2e/logged", id.as_str()),
                "{line}"
            );
            assert!(!field(line, "container").is_empty() && !field(line, "image").is_empty(), "{line}");
        }
    }
    // Each failure is told once, by whom it concerns.
    for (what, pod, container) in [
        ("PullImage failed", "e2e/logged", ""),
        ("CreateContainer failed", "e2e/logged", "absent"),
        ("StartContainer failed", "e2e/logged", "broken"),
        ("ExecSync failed", "e2e/logged", "main"),
        ("the shim has died", "e2e/logged", ""),
        ("the shim is gone", "e2e/second", ""),
    ] {
        let lines = lines(&world, what)?;
        let line = lines.first().with_context(|| format!("nothing says {what:?}"))?;
        assert_eq!((field(line, "pod"), field(line, "container")), (pod, container), "{line}");
        assert!(["WARN", "ERROR"].contains(&field(line, "level")), "{line}");
        let same = lines.iter().filter(|line| field(line, "container") == container).count();
        assert!(same == 1 || what == "ExecSync failed" && same == 2, "{same} times: {line}");
    }
    Ok(())
}
