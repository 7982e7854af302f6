//! `berth debug dump` while something hangs: it answers at once, and says what hangs where.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::eventually;
use berth_e2e::node::Options;
use berth_e2e::runtime::{Runtime, berth, tool};
use berth_e2e::world::World;
use berth_proto::cri::v1::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn only_berth(world: &World) -> bool {
    let berth = world.node.runtime() == Runtime::Berth;
    if !berth {
        println!("not run: it is about a command of berth's");
    }
    berth
}

fn command(world: &World, arguments: &[&str]) -> Result<String> {
    let start = Instant::now();
    let output = Command::new(berth()?).args(arguments).arg("--socket").arg(world.node.socket()).output()?;
    let took = start.elapsed();
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(took < berth_e2e::bound(Duration::from_secs(5)), "{took:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Asks until the text has all of these words in one line.
async fn line_with(world: &World, words: &[&str]) -> Result<String> {
    eventually(Duration::from_secs(20), async || {
        let text = command(world, &["debug", "dump"])?;
        let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
        Ok(line.with_context(|| format!("no line has {words:?}:\n{text}"))?.to_string())
    })
    .await
}

fn dump(world: &World) -> Result<Value> {
    Ok(serde_json::from_str(&command(world, &["debug", "dump", "--json"])?)?)
}

async fn shim_of(world: &World, pod: &str) -> Result<Pid> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let reply = world.client.runtime.clone().pod_sandbox_status(request).await?.into_inner();
    let info: Value = serde_json::from_str(&reply.info["info"])?;
    Ok(Pid::from_raw(i32::try_from(info["pid"].as_i64().context("no pid")?)?))
}

#[tokio::test]
async fn a_hung_network_plugin_is_named_with_the_pod_that_waits_for_it() -> Result<()> {
    let world = World::start_with(Options { cni: true, ..Options::default() }).await?;
    if !only_berth(&world) || tool("cni", "bridge").is_err() {
        println!("not run: needs Berth and `e2e/tools/build cni`");
        return Ok(());
    }
    let list = world.node.conf_dir().join("00-sleepy.conflist");
    std::fs::write(&list, r#"{"cniVersion":"1.0.0","name":"sleepy","plugins":[{"type":"sleepy"}]}"#)?;
    std::fs::create_dir_all(world.node.plugin_dir())?;
    let plugin = world.node.plugin_dir().join("sleepy");
    std::fs::write(&plugin, "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] && exec sleep 1000\nexit 0\n")?;
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let (client, config) = (world.client.clone(), world.pod("waits"));
    let run = tokio::spawn(async move { client.run_pod(&config).await });
    let words = ["RunPodSandbox of e2e/waits", "at step network", "CNI plugin sleepy to do ADD (process "];
    let line = line_with(&world, &words).await?;
    let plugin = line.split("(process ").nth(1).and_then(|rest| rest.split(')').next()).context("no pid")?;
    kill(Pid::from_raw(plugin.parse()?), Signal::SIGKILL)?;
    assert!(run.await?.is_err());
    let after = dump(&world)?;
    assert_eq!((&after["calls"], &after["pods"]), (&serde_json::json!([]), &serde_json::json!([])));
    Ok(())
}

#[tokio::test]
async fn a_stopped_shim_is_told_and_who_waits_for_it() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let (pod, _) = world.run(&world.pod("hung"), &world.sleeper("main")).await?;
    let text = command(&world, &["debug", "dump"])?;
    assert!(
        text.contains("e2e/hung ") && text.contains("  main ") && text.contains(": running for "),
        "{text}"
    );
    let shim = shim_of(&world, &pod).await?;
    kill(shim, Signal::SIGSTOP)?;
    line_with(&world, &["e2e/hung ", &format!("shim {shim} is stopped by a signal")]).await?;
    let (client, id) = (world.client.clone(), pod.clone());
    let stop = tokio::spawn(async move { client.stop_pod(&id).await });
    line_with(&world, &["  > StopPodSandbox for", "at step containers"]).await?;
    line_with(&world, &["    > StopContainer for", "for the shim to answer signal"]).await?;
    stop.await??;
    let after = dump(&world)?;
    assert_eq!(
        (&after["pods"][0]["state"], &after["pods"][0]["calls"]),
        (&"not ready".into(), &serde_json::json!([]))
    );
    Ok(world.client.end_pod(&pod).await?)
}

#[tokio::test]
async fn a_silent_registry_is_named_with_the_pull_that_waits_for_it() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let (host, client) = (silent.local_addr()?.to_string(), world.client.clone());
    let image = format!("{host}/image:latest");
    let pull = tokio::spawn(async move { client.pull(&image).await });
    let wait = format!("for registry {host} to answer");
    line_with(&world, &["PullImage of", &host, "at step manifest", &wait]).await?;
    line_with(&world, &[&host, "its manifest is awaited"]).await?;
    pull.abort();
    Ok(())
}

#[tokio::test]
async fn top_prints_what_pods_use_and_how_often_they_were_restarted() -> Result<()> {
    let world = World::start().await?;
    if !only_berth(&world) {
        return Ok(());
    }
    let config = world.pod("busy");
    let mut spinner = world.sleeper("spin");
    spinner.command =
        ["sh", "-c", "dd if=/dev/zero of=/file bs=1M count=3; while :; do :; done"].map(String::from).into();
    spinner.metadata = Some(ContainerMetadata { name: "spin".into(), attempt: 4 });
    let (pod, _) = world.run(&config, &spinner).await?;
    let (idle, _) = world.run(&world.pod("idle"), &world.sleeper("main")).await?;
    let end = Instant::now() + berth_e2e::bound(Duration::from_secs(30));
    loop {
        let text = command(&world, &["top", "--once"])?;
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["POD", "CPU", "MEMORY", "DISK", "RESTARTS", "RUNNING", "AGE"]);
        let busy = rows.iter().position(|row| row[0] == "e2e/busy").context("no e2e/busy")?;
        let idle = rows.iter().position(|row| row[0] == "e2e/idle").context("no e2e/idle")?;
        let cpu: u32 = rows[busy][1].trim_end_matches('m').parse().unwrap_or(0);
        // The writable layer is looked at again some seconds after the file was written.
        if cpu > 100 && busy < idle && rows[busy][3] == "3.0Mi" {
            assert_eq!(rows[busy][4..6], ["4", "1"], "{text}");
            break;
        }
        anyhow::ensure!(Instant::now() < end, "{text}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.client.end_pod(&pod).await?;
    Ok(world.client.end_pod(&idle).await?)
}
