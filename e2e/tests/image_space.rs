//! What images take of the disk: told as du(1) tells it, given back when they go, whatever happens meanwhile, and never
//! taken from under a container.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::cache;
use berth_e2e::client::{Client, image_spec};
use berth_e2e::disk::{Disk, FileSystem};
use berth_e2e::images::layer::{Layer, Node as Entry};
use berth_e2e::images::{Artifact, Image, catalog};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::ImageFsInfoRequest;

fn skipped() -> Result<bool> {
    let skipped = Runtime::from_env()? == Runtime::Containerd;
    if skipped {
        println!("not run: it looks into berth's own directories");
    }
    Ok(skipped)
}

/// Bytes and inodes of ImageFsInfo.
async fn told(client: &Client) -> Result<(u64, u64)> {
    let info = client.images.clone().image_fs_info(ImageFsInfoRequest {}).await?.into_inner();
    let system = info.image_filesystems.into_iter().next().context("no file system")?;
    Ok((system.used_bytes.unwrap_or_default().value, system.inodes_used.unwrap_or_default().value))
}

#[tokio::test]
async fn what_is_told_is_what_du_finds() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let registry = Registry::start()?;
    let names = publish(&registry)?;
    for (system, mib) in [(FileSystem::Ext4, 96), (FileSystem::Xfs, 320)] {
        let disk = Disk::new(system, mib)?;
        let node = Node::start(&Options { root: Some(disk.path()), ..Options::default() }).await?;
        let client = node.client().await?;
        for name in &names {
            client.pull(name).await?;
            compare(&disk, &client).await.with_context(|| format!("{system:?} {name}"))?;
        }
        let status = client.image(&names[0]).await?.unwrap_or_default();
        let manifest = status.repo_digests.first().context("no digest")?;
        ensure!(status.size > 5_000_000, "{manifest}: {}", status.size);
        for name in &names {
            client.remove_image(name).await?;
        }
        ensure!(told(&client).await? == (0, 0));
        drop(node);
    }
    Ok(())
}

/// Images with everything that takes space in ways of its own.
fn publish(registry: &Registry) -> Result<Vec<String>> {
    let long = "l".repeat(200);
    let layer = (0..900).fold(Layer::default().dir("wide"), |layer, n| {
        layer.file(&format!("wide/{}{n}", "n".repeat(100)), 0o644, vec![1; n * 11])
    });
    let layer = layer
        .file("big", 0o644, vec![7; 5_000_001])
        .hardlink("same", "big")
        .symlink("link", &long)
        .add("pipe", 0o644, Entry::Fifo)
        .add("big", 0o644, Entry::File(vec![8; 70_000]))
        .whiteout("gone");
    let implies = Layer::default().file("wide/more", 0o644, "x").hardlink("linked", "wide/more");
    let stands = Layer::default().hardlink("below", "big");
    let mut names = Vec::new();
    for (name, image) in [
        ("one", Image::of(layer.clone())),
        ("two", Image::of(layer.clone()).layer(implies)),
        ("three", Image::of(layer).layer(stands)),
    ] {
        names.push(registry.publish(name, "v1", &image)?);
    }
    let artifact =
        Artifact::new("application/vnd.example.model").file("weights", vec![5; 300_000]).build()?;
    registry.storage().publish("model", "v1", &artifact)?;
    names.push(registry.reference("model:v1"));
    Ok(names)
}

async fn compare(disk: &Disk, client: &Client) -> Result<()> {
    let (layers, blobs) = (disk.path().join("layers"), disk.path().join("blobs"));
    let kept = cache::names(&blobs)?.len() as u64;
    // The two directories themselves are ours, not the images'; of a blob its length is told.
    let found = cache::names(&layers)?.into_iter().map(|name| cache::bytes(&layers.join(name)));
    let found: u64 = found.sum::<Result<_>>()?;
    let (bytes, inodes) = told(client).await?;
    ensure!((found..=found + kept * 4096).contains(&bytes), "{bytes} told, {found} found");
    let lines: usize = cache::layers(&disk.path())?.values().map(Vec::len).sum();
    ensure!(inodes <= lines as u64 + kept, "{inodes} inodes of {lines} names");
    let sizes: u64 = client.list_images().await?.iter().map(|image| image.size).sum();
    ensure!(sizes >= bytes, "layers are shared: {sizes} {bytes}");
    Ok(())
}

#[tokio::test]
async fn packed_layers_are_kept_where_the_configuration_says_so() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = Image::of(Layer::default().file("data", 0o644, noise).dir("d"))
        .layer(Layer::default().hardlink("d/same", "data"));
    let built = image.build()?;
    let registry = Registry::start()?;
    registry.storage().publish("packed", "v1", &built)?;
    let name = registry.reference("packed:v1");
    for keep in [false, true] {
        let config = format!("[layers]\nkeep_blobs = {keep}\n");
        let node = Node::start(&Options { config, ..Options::default() }).await?;
        let client = node.client().await?;
        client.pull(&name).await?;
        let blobs = node.root().join("blobs");
        for blob in &built.blobs[..2] {
            let kept = std::fs::read(blobs.join(blob.digest.trim_start_matches("sha256:")));
            ensure!(kept.is_ok() == keep, "{keep}: {}", blob.digest);
            ensure!(kept.is_ok_and(|kept| berth_e2e::images::sha256(&kept) == blob.digest) == keep);
        }
        let (bytes, _) = told(&client).await?;
        let found = cache::bytes(&node.root().join("layers"))? + cache::bytes(&blobs)?;
        ensure!(bytes <= found && bytes + 8 * 4096 >= found, "{bytes} told, {found} found");
        client.remove_image(&name).await?;
        cache::expect_empty(&blobs)?;
        cache::expect_empty(&node.root().join("staging"))?;
        ensure!(told(&client).await? == (0, 0));
    }
    Ok(())
}

#[tokio::test]
async fn a_removal_goes_on_after_a_crash() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let mut world = World::start().await?;
    let layer =
        (0..3000).fold(Layer::default(), |layer, n| layer.file(&format!("{}/{n}", n % 40), 0o644, "text"));
    let name = world.registry.publish("many", "v1", &Image::of(layer))?;
    let trash = world.node.root().join("trash");
    let mut interrupted = 0;
    for _ in 0..4 {
        world.client.pull(&name).await?;
        let (client, image) = (world.client.clone(), name.clone());
        let removal = tokio::spawn(async move { client.remove_image(&image).await });
        let end = Instant::now() + Duration::from_secs(20);
        while cache::names(&trash)?.is_empty() && Instant::now() < end && !removal.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.node.kill()?;
        interrupted += usize::from(!cache::names(&trash)?.is_empty());
        let _ = removal.await;
        world.node.launch().await?;
        world.client = world.node.client().await?;
        ensure!(
            world.client.image(&name).await?.is_none(),
            "a removal that has begun to free space is a removal"
        );
        cache::expect_empty(&trash)?;
        ensure!(cache::names(&world.node.root().join("layers"))?.len() == 1, "only busybox is left");
    }
    ensure!(interrupted > 0, "no removal was interrupted");
    println!("{interrupted} of 4 removals were interrupted");
    Ok(())
}

#[tokio::test]
async fn no_layer_goes_from_under_a_container_that_races_with_its_removal() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let world = World::start().await?;
    let many =
        (0..300).fold(Layer::default(), |layer, n| layer.file(&format!("many/{n}"), 0o644, format!("{n}\n")));
    let name = world.registry.publish("raced", "v1", &catalog::busybox()?.layer(many))?;
    let (mut won, mut lost) = (0, 0);
    for round in 0..24_u64 {
        world.client.pull(&name).await?;
        let config = world.pod(&format!("raced{round}"));
        let pod = world.client.run_pod(&config).await?;
        let mut spec = world.sleeper("main");
        spec.image = Some(image_spec(&name));
        let create = async {
            tokio::time::sleep(Duration::from_micros(round % 8 * 400)).await;
            world.launch(&pod, &spec, &config).await
        };
        let remove = async {
            tokio::time::sleep(Duration::from_micros(round / 8 * 900)).await;
            world.client.remove_image(&name).await?;
            // A pull at the same time brings the layers back, perhaps those that are going.
            if round % 3 == 0 { world.client.pull(&name).await.map(drop) } else { Ok(()) }
        };
        let (created, removed) = tokio::join!(create, remove);
        removed?;
        match created {
            Ok(id) => {
                won += 1;
                let seen = world.client.shell(&id, "cat /many/* | wc -c").await?;
                ensure!(seen.trim() == "1090", "round {round}: {seen}");
            }
            Err(status) => {
                lost += 1;
                ensure!(status.code() == tonic::Code::NotFound, "round {round}: {status:?}");
            }
        }
        world.client.end_pod(&pod).await?;
        world.client.remove_image(&name).await?;
    }
    println!("{won} containers ran, {lost} were refused");
    ensure!(won > 0, "no container was ever faster than a removal");
    cache::expect_empty(&world.node.root().join("trash"))?;
    ensure!(cache::names(&world.node.root().join("layers"))?.len() == 1, "only busybox is left");
    Ok(())
}
