//! What crictl shows of pods, containers, images and the node: the `info` that tools know from containerd and CRI-O.

use anyhow::{Context, Result};
use berth_e2e::crictl::Crictl;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use serde_json::Value;

async fn start() -> Result<Option<(World, Crictl)>> {
    let world = World::start().await?;
    if world.node.runtime() != Runtime::Berth {
        println!("not run: others show other things");
        return Ok(None);
    }
    let crictl = Crictl::new(&world.node)?;
    Ok(Some((world, crictl)))
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| text.to_string())
}

/// The link of a namespace file.
fn namespace(path: &str) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path).with_context(|| path.to_string())?.ino())
}

/// The path of a namespace in a runtime spec.
fn path_of(spec: &Value, kind: &str) -> Result<String> {
    let all = spec["linux"]["namespaces"].as_array().context("no namespaces")?;
    let found =
        all.iter().find(|one| one["type"] == kind).with_context(|| format!("no {kind} in {all:?}"))?;
    Ok(found["path"].as_str().with_context(|| format!("{kind} has no path"))?.to_string())
}

#[tokio::test]
async fn a_pod_shows_its_process_namespaces_and_network() -> Result<()> {
    let Some((world, crictl)) = start().await? else { return Ok(()) };
    let (pod, id) = world.run(&world.pod("shown"), &world.sleeper("main")).await?;
    let shown = json(&crictl.run(&["inspectp", &pod])?)?;
    let info = &shown["info"];
    let container = json(&crictl.run(&["inspect", &id])?)?["info"].clone();
    let (pid, of_container) = (&info["pid"], &container["pid"]);
    assert!(pid.as_i64().is_some_and(|pid| pid > 1), "{info}");
    assert_eq!(info["config"]["metadata"]["name"], "shown");
    assert_eq!(info["config"]["metadata"]["namespace"], "e2e");
    let ip = shown["status"]["network"]["ip"].as_str().context("no address")?.to_string();
    let eth0 = &info["cniResult"]["Interfaces"]["eth0"];
    assert_eq!(eth0["IPConfigs"][0]["IP"], ip, "{info}");
    assert!(eth0["IPConfigs"][0]["Gateway"].is_string() && eth0["Mac"].is_string(), "{eth0}");
    assert_eq!(info["networkResult"]["routes"][0]["dst"], "0.0.0.0/0");
    for kind in ["network", "ipc", "uts"] {
        let inside = namespace(&format!("/proc/{of_container}/ns/{}", kind.trim_end_matches("work")))?;
        assert_eq!(namespace(&path_of(&info["runtimeSpec"], kind)?)?, inside, "{kind}");
        assert_eq!(namespace(&path_of(&container["runtimeSpec"], kind)?)?, inside, "{kind}");
    }
    world.client.stop_pod(&pod).await?;
    let info = json(&crictl.run(&["inspectp", &pod])?)?["info"].clone();
    assert_eq!((&info["pid"], &info["netNamespaceClosed"]), (&0.into(), &true.into()), "{info}");
    Ok(world.client.end_pod(&pod).await?)
}

#[tokio::test]
async fn a_container_shows_its_layers_cgroup_and_spec() -> Result<()> {
    let Some((world, crictl)) = start().await? else { return Ok(()) };
    let (pod, id) = world.run(&world.pod("shown"), &world.sleeper("main")).await?;
    let info = json(&crictl.run(&["inspect", &id])?)?["info"].clone();
    assert_eq!(info["sandboxID"], pod);
    assert_eq!(info["snapshotKey"], id);
    assert_eq!(info["config"]["image"]["image"], world.busybox);
    assert_eq!(info["config"]["metadata"]["name"], "main");
    assert_eq!(info["removing"], false);
    let pid = info["pid"].as_i64().context("no pid")?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let cgroup = info["cgroup"].as_str().context("no cgroup")?;
    assert!(groups.lines().any(|line| line.ends_with(cgroup)), "{cgroup}\n{groups}");
    assert_eq!(info["runtimeSpec"]["linux"]["cgroupsPath"], info["cgroup"]);
    let lower = info["rootfs"]["lower"].as_array().context("no layers")?;
    assert!(!lower.is_empty());
    for layer in lower {
        assert!(std::path::Path::new(layer["path"].as_str().context("no path")?).is_dir(), "{layer}");
    }
    world.client.exec(&id, &["sh", "-c", "echo written > /here"], 10).await?;
    let upper = info["rootfs"]["upper"].as_str().context("no upper")?;
    assert_eq!(std::fs::read_to_string(format!("{upper}/here"))?, "written\n");
    Ok(world.client.end_pod(&pod).await?)
}

#[tokio::test]
async fn an_image_shows_its_config_and_its_chain() -> Result<()> {
    let Some((world, crictl)) = start().await? else { return Ok(()) };
    let shown = json(&crictl.run(&["inspecti", &world.busybox])?)?;
    let info = &shown["info"];
    let diff_ids = info["imageSpec"]["rootfs"]["diff_ids"].as_array().context("no diff_ids")?;
    assert!(info["imageSpec"]["architecture"].is_string(), "{info}");
    // The chain of a single layer is the layer.
    assert_eq!((diff_ids.len(), &info["chainID"]), (1, &diff_ids[0]));
    let layer = &info["layers"][0];
    assert_eq!(layer["id"], diff_ids[0]);
    assert!(std::path::Path::new(layer["path"].as_str().context("no path")?).is_dir());
    assert!(layer["usedBytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{layer}");
    Ok(())
}

#[tokio::test]
async fn the_node_shows_its_configuration_and_since_when_what_is_wrong() -> Result<()> {
    let Some((world, crictl)) = start().await? else { return Ok(()) };
    let info = json(&crictl.run(&["info"])?)?;
    assert_eq!(info["config"]["effective"]["registry"]["no_progress"], "5m", "{info}");
    assert_eq!(info["config"]["rootDir"], world.node.root().to_string_lossy().as_ref());
    let condition = |info: &Value, name: &str| -> Result<Value> {
        let all = info["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == name).with_context(|| format!("no {name} in {info}"))
    };
    for name in ["RuntimeReady", "NetworkReady", "StorageHasRoom", "CallsProgress"] {
        let condition = condition(&info, name)?;
        assert_eq!(condition["status"], true, "{condition}");
        assert!(
            condition["message"].as_str().is_some_and(|text| text.starts_with("since 20")),
            "{condition}"
        );
    }
    let broken = world.node.conf_dir().join("00-broken.conflist");
    std::fs::create_dir_all(world.node.conf_dir())?;
    std::fs::write(&broken, "{ not json")?;
    let first = condition(&json(&crictl.run(&["info"])?)?, "NetworkReady")?;
    assert_eq!(
        (&first["status"], &first["reason"]),
        (&false.into(), &"NetworkPluginNotReady".into()),
        "{first}"
    );
    let message = first["message"].as_str().context("no message")?.to_string();
    assert!(message.contains("00-broken.conflist") && message.contains("(since 20"), "{message}");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let again = condition(&json(&crictl.run(&["info"])?)?, "NetworkReady")?;
    assert_eq!(again["message"], message.as_str(), "it is told since when it began");
    std::fs::remove_file(broken)?;
    assert_eq!(condition(&json(&crictl.run(&["info"])?)?, "NetworkReady")?["status"], true);
    Ok(())
}
