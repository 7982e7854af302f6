//! `berth image verify` and `berth image gc`: a bit that the disk has turned is found, its layer goes out of use and the
//! next pull mends it, while containers run on; and what nothing uses goes.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use berth_e2e::cache;
use berth_e2e::client::image_spec;
use berth_e2e::disk::{Disk, FileSystem};
use berth_e2e::images::{Layer, catalog};
use berth_e2e::node::{Node, Options};
use berth_e2e::runtime::{Runtime, berth};
use berth_e2e::world::World;
use berth_proto::cri::v1::ContainerState;

/// `berth image ARGUMENTS` at a node's socket.
fn image(node: &Node, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(berth()?);
    Ok(command.args(["image", "--socket"]).arg(node.socket()).args(arguments).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints, where it must succeed.
fn good(node: &Node, arguments: &[&str]) -> Result<String> {
    let output = image(node, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}

fn skipped() -> Result<bool> {
    let skipped = Runtime::from_env()? == Runtime::Containerd;
    if skipped {
        println!("not run: it is about commands of berth's");
    }
    Ok(skipped)
}

#[tokio::test]
async fn a_turned_bit_is_found_and_mended_by_the_next_pull_while_containers_run_on() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let disk = Disk::new(FileSystem::Ext4, 96)?;
    let mut world = World::start_with(Options { root: Some(disk.path()), ..Options::default() }).await?;
    let precious = b"what must not change, and is on the disk only once".repeat(200);
    let layer = Layer::default().file("precious", 0o644, precious.clone()).file("other", 0o644, "other");
    let name = world.registry.publish("precious", "v1", &catalog::busybox()?.layer(layer))?;
    world.client.pull(&name).await?;
    let whole = good(&world.node, &["verify"])?;
    ensure!(whole.contains("all whole"), "{whole}");
    let sleeper = |world: &World| {
        let mut spec = world.sleeper("main");
        spec.image = Some(image_spec(&name));
        spec
    };
    let (old_pod, old) = world.run(&world.pod("old"), &sleeper(&world)).await?;

    // The page cache of the layer still has it right; the disk has not.
    disk.flip(&precious[..64])?;
    let found = image(&world.node, &["verify"])?;
    let (told, error) = (text(&found.stdout), text(&found.stderr));
    ensure!(found.status.code() == Some(1) && error.contains("1 damaged"), "{told}{error}");
    let line = told.lines().find(|line| line.starts_with("damaged: layer sha256:")).context(told.clone())?;
    ensure!(line.contains(&name) && !line.contains(&world.busybox), "{line}");
    let left: Vec<_> =
        world.client.list_images().await?.into_iter().flat_map(|image| image.repo_tags).collect();
    ensure!(left.contains(&world.busybox) && !left.contains(&name), "{left:?}");
    ensure!(good(&world.node, &["verify"])?.contains("all whole"), "the damaged layer is out of use");

    // As if nothing were, also with another daemon.
    let sees = "wc -c < /precious; cat /other";
    ensure!(world.client.shell(&old, sees).await? == "10000\nother");
    world.node.kill()?;
    world.node.launch().await?;
    world.client = world.node.client().await?;
    ensure!(world.client.status(&old).await?.state() == ContainerState::ContainerRunning);
    ensure!(world.client.shell(&old, sees).await? == "10000\nother");

    world.client.pull(&name).await?;
    ensure!(good(&world.node, &["verify", &name])?.contains("all whole"));
    let (new_pod, new) = world.run(&world.pod("new"), &sleeper(&world)).await?;
    ensure!(world.client.shell(&new, "cat /precious").await?.as_bytes() == precious);
    ensure!(world.client.shell(&old, sees).await? == "10000\nother");
    let quarantine = disk.path().join("quarantine");
    ensure!(cache::names(&quarantine)?.len() == 1, "a container still runs on it");
    for pod in [old_pod, new_pod] {
        world.client.end_pod(&pod).await?;
    }
    good(&world.node, &["gc"])?;
    cache::expect_empty(&quarantine)?;
    cache::expect_empty(&disk.path().join("trash"))
}

#[tokio::test]
async fn a_damaged_blob_is_kept_anew_by_the_next_pull() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let world = World::start().await?;
    let config = world.client.image(&world.busybox).await?.unwrap_or_default().id;
    let blob = world.node.root().join("blobs").join(config.trim_start_matches("sha256:"));
    let before = std::fs::read(&blob)?;
    std::fs::write(&blob, b"{}")?;
    let found = image(&world.node, &["verify", &world.busybox])?;
    let told = text(&found.stdout);
    ensure!(!found.status.success() && told.contains(&format!("damaged: blob {config}")), "{told}");
    world.client.pull(&world.busybox).await?;
    ensure!(std::fs::read(&blob)? == before);
    ensure!(good(&world.node, &["verify"])?.contains("all whole"));
    let unknown = image(&world.node, &["verify", "no.example/such:1"])?;
    ensure!(
        text(&unknown.stderr).contains("there is no image \"no.example/such:1\""),
        "{}",
        text(&unknown.stderr)
    );
    Ok(())
}

#[tokio::test]
async fn what_nothing_uses_is_told_and_freed() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let world = World::start().await?;
    let (root, digits) = (world.node.root(), "0123456789abcdef".repeat(4));
    let strays =
        [root.join("staging/half"), root.join("layers").join(&digits), root.join("blobs").join(&digits)];
    for stray in &strays[..2] {
        std::fs::create_dir_all(stray.join("deep/er"))?;
        std::fs::write(stray.join("deep/data"), vec![1; 100_000])?;
    }
    std::fs::write(&strays[2], b"nobody's")?;
    let known = cache::names(&root.join("layers"))?.len();
    let would = good(&world.node, &["gc", "--dry-run"])?;
    ensure!(would.lines().filter(|line| line.starts_with("unfinished ")).count() == 3, "{would}");
    ensure!(would.contains("would be freed") && would.contains("half"), "{would}");
    ensure!(strays.iter().all(|stray| stray.exists()), "a dry run removes nothing");
    let freed = good(&world.node, &["gc"])?;
    ensure!(freed.contains("KiB freed"), "{freed}");
    ensure!(strays.iter().all(|stray| !stray.exists()));
    cache::expect_empty(&root.join("trash"))?;
    ensure!(cache::names(&root.join("layers"))?.len() == known - 1);
    ensure!(good(&world.node, &["gc"])? == "0 B freed\n");
    world.run(&world.pod("after"), &world.sleeper("main")).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_daemon_they_say_so() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    for command in ["verify", "gc"] {
        let output =
            Command::new(berth()?).args(["image", "--socket", "/nowhere/berth.sock", command]).output()?;
        let error = text(&output.stderr);
        ensure!(!output.status.success(), "{command} succeeds");
        ensure!(error.contains("no daemon answers at /nowhere/berth.sock"), "{error}");
    }
    Ok(())
}
