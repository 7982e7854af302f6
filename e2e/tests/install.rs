//! `berth node` on a host of its own: a root directory with a stand-in for systemd (berth_e2e::systemd), programs that really run,
//! and another runtime, really running too, that the kubelet is switched from.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::client::Client;
use berth_e2e::installer::Installer;
use berth_e2e::node::Options;
use berth_e2e::runtime::{Runtime, tool};
use berth_e2e::systemd::Host;
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

/// Only Berth has this command.
async fn world() -> Result<Option<World>> {
    if Runtime::from_env()? == Runtime::Berth {
        return World::start().await.map(Some);
    }
    println!("not run: it is about a command of berth's");
    Ok(None)
}

/// The old runtime's socket as the host has it.
fn forward(socket: &Path, target: PathBuf) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(())
}

/// A host whose kubelet uses a runtime that does not answer.
async fn host() -> Result<(TempDir, Host)> {
    let root = tempfile::Builder::new().prefix("berth-e2e-host-").tempdir()?;
    let host = Host::boot(root.path(), "/run/old.sock").await?;
    Ok((root, host))
}

/// A host whose kubelet uses the world's runtime.
async fn host_on(world: &World) -> Result<(TempDir, Host)> {
    let (root, host) = host().await?;
    forward(&root.path().join("run/old.sock"), world.node.socket())?;
    Ok((root, host))
}

/// Every file and directory of a host that is not the stand-in's own.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Option<(String, u32)>>> {
    let mut found = BTreeMap::new();
    let mut left: Vec<_> = ["etc", "opt", "run", "usr", "var"].map(|dir| root.join(dir)).into();
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
            found.insert(path, None);
        } else if metadata.is_file() {
            // A namespace that is pinned is a file that can't be read.
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            found.insert(path, Some((text, metadata.permissions().mode())));
        }
    }
    Ok(found)
}

/// Nothing but what pods need is there that was not there before, and nothing that was is gone.
fn only_pods_are_left(root: &Path, before: &BTreeMap<PathBuf, Option<(String, u32)>>) -> Result<()> {
    let left = tree(root)?;
    let of_pods = [root.join("var/lib/berth"), root.join("run/berth")];
    let strange: Vec<_> = left
        .iter()
        .filter(|(path, content)| before.get(*path) != Some(content))
        .filter(|(path, _)| !of_pods.iter().any(|dir| path.starts_with(dir)))
        .collect();
    ensure!(strange.is_empty(), "{strange:?}");
    ensure!(before.keys().all(|path| left.contains_key(path)), "something is gone");
    Ok(())
}

/// A pod with a container that runs on the installed Berth.
async fn survivor(world: &World, host: &Host) -> Result<(String, String)> {
    let client = Client::connect(&socket(host)).await?;
    client.pull(&world.busybox).await?;
    let config = world.pod("survivor");
    let id = client.run_pod(&config).await?;
    let container = client.create(&id, &world.sleeper("main"), &config).await?;
    client.start(&container).await?;
    Ok((id, container))
}

fn socket(host: &Host) -> PathBuf {
    host.root().join("run/berth/berth.sock")
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_another_runtime_nothing_of_the_kubelet_is_touched_and_pods_outlive_all() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let mut installer = Installer::new(&world).await?;
    let (root, host) = host().await?;
    let theirs = root.path().join("etc/berth/config.toml");
    fs::create_dir_all(theirs.parent().context("no parent")?)?;
    fs::write(&theirs, "# by hand\n")?;
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o640))?;
    let before = tree(root.path())?;
    let kubelet = host.kubelet();
    let install = ["install", "--mode", "sidecar"];

    installer.good(&host, &install).await?;
    let calls = host.calls();
    assert!(calls.contains(&"enable berth.service".into()), "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains("kubelet")), "{calls:?}");
    let (id, container) = survivor(&world, &host).await?;
    let started = Client::connect(&socket(&host)).await?.status(&container).await?.started_at;

    // The same again.
    let daemon = host.daemon();
    installer.good(&host, &install).await?;
    assert_eq!(host.calls(), ["start berth.service"]);
    assert_eq!(host.daemon(), daemon, "started anew for nothing");
    assert!(installer.good(&host, &["status"]).await?.contains("kubelet: its own runtime"));

    // Who has not installed yet is told so, whatever is there.
    let mine = |name: &'static str| ["--installer", name];
    installer.good(&host, &[&install[..], &mine("first")].concat()).await?;
    installer.good(&host, &[&["status"][..], &mine("first")].concat()).await?;
    let said = installer.bad(&host, &[&["status"][..], &mine("second")].concat()).await?;
    assert!(said.contains("second has not installed yet"), "{said}");
    assert_eq!(host.daemon(), daemon, "started anew for a name");
    host.calls();

    // A configuration that is no good changes nothing.
    let good = std::mem::replace(&mut installer.config, "[registry]\nretires = 1\n".into());
    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("unknown field `retires`"), "{said}");
    installer.config = good;
    assert!(!fs::read_to_string(&theirs)?.contains("retires"));

    // Another version takes over the pods.
    installer.upgrade()?;
    host.calls();
    installer.good(&host, &install).await?;
    let calls = host.calls();
    assert_eq!(calls.iter().filter(|call| *call == "restart berth.service").count(), 1, "{calls:?}");
    assert_ne!(host.daemon(), daemon);
    let client = Client::connect(&socket(&host)).await?;
    assert_eq!(client.status(&container).await?.started_at, started);
    assert_eq!(fs::read_dir(root.path().join("opt/berth/versions"))?.count(), 2);

    // Gone, but for the pod and what it needs.
    let said = installer.good(&host, &["uninstall"]).await?;
    assert!(said.contains("pods may still run"), "{said}");
    assert_eq!(host.daemon(), None);
    only_pods_are_left(root.path(), &before)?;
    assert_eq!(installer.bad(&host, &["status"]).await?, "berth is not installed here\n");
    assert!(installer.good(&host, &["uninstall"]).await?.contains("not installed"));

    // Installed once more, Berth finds it.
    installer.good(&host, &install).await?;
    let client = Client::connect(&socket(&host)).await?;
    assert_eq!(client.status(&container).await?.started_at, started);
    client.end_pod(&id).await?;
    installer.good(&host, &["uninstall"]).await?;
    assert_eq!(host.kubelet(), kubelet);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_with_the_policy_that_names_them_and_not_without_it() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let mut installer = Installer::new(&world).await?;
    let (root, host) = host().await?;
    let (before, plain, keys) = (tree(root.path())?, installer.config.clone(), tempfile::tempdir()?);
    let (given, placed) = (keys.path().join("team.pub"), root.path().join("etc/berth/trust/team.pub"));
    let trust = keys.path().to_string_lossy().into_owned();
    let bare = ["install", "--mode", "sidecar"];
    let install = [&bare[..], &["--trust", &trust]].concat();
    let restarts = || host.calls().iter().filter(|call| *call == "restart berth.service").count();

    let first = rcgen::KeyPair::generate()?.public_key_pem();
    fs::write(&given, &first)?;
    installer.config += &format!("[[image.policy.rules]]\nscope = \"docker.io/keys\"\nkeys = [{placed:?}]\n");
    installer.good(&host, &install).await?;
    assert_eq!(fs::read_to_string(&placed)?, first);
    restarts();
    installer.good(&host, &install).await?;
    assert_eq!(restarts(), 0, "for nothing new");

    // The daemon reads keys when it starts.
    let second = rcgen::KeyPair::generate()?.public_key_pem();
    fs::write(&given, &second)?;
    installer.good(&host, &install).await?;
    assert_eq!((fs::read_to_string(&placed)?, restarts()), (second.clone(), 1));

    // One that nobody brings changes nothing.
    let good = installer.config.clone();
    installer.config = good.replace(&format!("{placed:?}"), "\"/etc/berth/trust/other.pub\"");
    let said = installer.bad(&host, &install).await?;
    assert!(
        said.contains("[image.policy] names /etc/berth/trust/other.pub, which is not brought along"),
        "{said}"
    );
    assert_eq!((fs::read_to_string(&placed)?, restarts()), (second, 0));

    installer.config = plain;
    installer.good(&host, &bare).await?;
    ensure!(!placed.exists(), "a key that nothing names is left");
    installer.good(&host, &["uninstall"]).await?;
    only_pods_are_left(root.path(), &before)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_is_switched_with_its_pods_and_switched_back() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let installer = Installer::new(&world).await?;
    let (root, host) = host_on(&world).await?;
    world.client.run_pod(&world.pod("moved")).await?;
    let (before, kubelet) = (tree(root.path())?, host.kubelet().context("no kubelet")?);
    let install = ["install", "--mode", "kubelet", "--ready-within", "30s"];

    installer.good(&host, &install).await?;
    let line = host.kubelet().context("no kubelet")?;
    assert!(line.starts_with("/usr/bin/kubelet $KUBELET_CONFIG_ARGS"), "{line}");
    assert!(line.contains(" --container-runtime-endpoint=unix:///run/berth/berth.sock"), "{line}");
    let calls = host.calls();
    let order: Vec<_> =
        calls.iter().filter(|call| call.contains("kubelet") || call.contains("switch")).collect();
    assert_eq!(order, ["run berth-switch.service", "stop kubelet.service", "start kubelet.service"]);
    eventually(Duration::from_secs(20), async || {
        ensure!(world.client.pods(None).await?.is_empty(), "the old runtime still has pods");
        Ok(())
    })
    .await?;
    assert!(installer.good(&host, &["status"]).await?.contains("kubelet.service uses berth"));

    installer.good(&host, &install).await?;
    assert_eq!(host.calls(), ["start berth.service"]);

    let client = Client::connect(&socket(&host)).await?;
    client.run_pod(&world.pod("on-berth")).await?;
    installer.good(&host, &["install", "--uninstall", "--mode", "kubelet"]).await?;
    assert_eq!(host.kubelet(), Some(kubelet));
    let after = tree(root.path())?;
    let left: Vec<_> = after.iter().filter(|(path, content)| before.get(*path) != Some(content)).collect();
    assert!(left.is_empty() && after.len() == before.len(), "{left:?}");
    Ok(())
}

/// The daemon ends what a kubelet has begun that is gone since.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_being_made_does_not_outlive_the_switch_back() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    if tool("cni", "bridge").is_err() {
        println!("not run: needs `e2e/tools/build cni`");
        return Ok(());
    }
    let installer = Installer::with(&world, Options { cni: true, ..Options::default() }).await?;
    fs::create_dir_all(installer.node.plugin_dir())?;
    let plugin = installer.node.plugin_dir().join("slow");
    let script = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
touch "$0.begun" && sleep 2 && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.9/24"}]}'
"#;
    fs::write(&plugin, script)?;
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
    let list = r#"{"cniVersion":"1.0.0","name":"slow","plugins":[{"type":"slow"}]}"#;
    fs::write(installer.node.conf_dir().join("00-slow.conflist"), list)?;
    let (_root, host) = host_on(&world).await?;
    installer.good(&host, &["install", "--mode", "kubelet", "--ready-within", "30s"]).await?;

    let (client, config) = (Client::connect(&socket(&host)).await?, world.pod("late"));
    let kubelet = tokio::spawn(async move { client.run_pod(&config).await });
    eventually(Duration::from_secs(10), async || {
        ensure!(plugin.with_extension("begun").exists(), "the plugin was not asked");
        Ok(())
    })
    .await?;
    kubelet.abort();
    installer.good(&host, &["install", "--mode", "sidecar"]).await?;
    // Longer than the plugin takes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(Client::connect(&socket(&host)).await?.pods(None).await?.is_empty());
    installer.good(&host, &["uninstall"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_does_not_become_healthy_gets_its_old_runtime_back() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let installer = Installer::new(&world).await?;
    let (root, host) = host_on(&world).await?;
    let kubelet = host.kubelet();
    host.sicken(Some("berth.sock"));
    let install = ["install", "--mode", "kubelet", "--ready-within", "2s"];

    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("the node was not Ready within 2 s") && said.contains("500"), "{said}");
    assert_eq!(host.kubelet(), kubelet);
    assert!(!root.path().join("etc/systemd/system/kubelet.service.d").exists());

    // The pod that asks again and again disturbs nobody.
    host.calls();
    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("switched back to its old runtime"), "{said}");
    assert_eq!(host.calls(), ["start berth.service"]);
    assert!(installer.bad(&host, &["status"]).await?.contains("switched back"));

    // Another attempt is one.
    host.sicken(None);
    installer.good(&host, &[&install[..], &["--attempt", "2"]].concat()).await?;
    assert!(host.kubelet().context("no kubelet")?.contains("berth.sock"));
    installer.good(&host, &["uninstall"]).await?;
    assert_eq!(host.kubelet(), kubelet);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_at_once_is_not_waited_for_and_the_one_before_is_back() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let mut installer = Installer::new(&world).await?;
    let (root, host) = host().await?;
    let before = tree(root.path())?;
    let install = ["install", "--mode", "sidecar"];
    installer.good(&host, &install).await?;
    let (daemon, placed) = (host.daemon(), root.path().join("etc/berth/config.toml"));

    // An address of documentation (RFC 5737): good as a configuration, and no machine has it.
    let good = installer.config.clone();
    installer.config += "[streaming]\naddress = \"192.0.2.1\"\n";
    let begin = Instant::now();
    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("the daemon has ended 3 times as soon as it was started"), "{said}");
    assert!(said.contains("192.0.2.1"), "{said}");
    assert!(begin.elapsed() < bound(Duration::from_secs(20)), "{:?}", begin.elapsed());
    assert_ne!(host.daemon(), daemon);
    assert_eq!(fs::read_to_string(placed)?, good);
    Client::connect(&socket(&host)).await?.pods(None).await?;

    installer.config = good;
    installer.good(&host, &install).await?;
    installer.good(&host, &["uninstall"]).await?;
    only_pods_are_left(root.path(), &before)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_switched_is_refused_before_anything_happens_to_the_kubelet() -> Result<()> {
    let Some(world) = world().await? else { return Ok(()) };
    let installer = Installer::new(&world).await?;
    let (root, host) = host().await?;
    let install = ["install", "--mode", "kubelet"];

    let wrapper = root.path().join("usr/lib/systemd/system/kubelet.service.d/20-shell.conf");
    fs::write(&wrapper, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec kubelet'\n")?;
    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("it starts /bin/sh, which is no kubelet"), "{said}");
    let said = installer.bad(&host, &["install", "--kubelet-unit", "k3s.service"]).await?;
    assert!(said.contains("k3s.service"), "{said}");
    assert!(!host.calls().iter().any(|call| call.contains("kubelet")));
    installer.good(&host, &["uninstall"]).await?;

    let packaged = root.path().join("usr/lib/systemd/system/berth.service");
    fs::write(&packaged, "")?;
    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("belongs to an installed package"), "{said}");
    fs::remove_file(packaged)?;

    fs::remove_dir(root.path().join("run/systemd/system"))?;
    let said = installer.bad(&host, &install).await?;
    assert!(said.contains("systemd does not run this host") && said.contains("service.manager"), "{said}");
    // Where nobody can be asked, files are written and nothing else.
    installer.good(&host, &["install", "--mode", "sidecar", "--service", "none"]).await?;
    assert!(root.path().join("opt/berth/bin/berth").exists());
    installer.good(&host, &["uninstall", "--service", "none"]).await?;
    assert!(!root.path().join("opt/berth").exists());
    Ok(())
}
