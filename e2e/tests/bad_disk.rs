//! Disks that fail or are full, at any write of a pull: an error that names the image and the cause, space that comes
//! back, nothing half done, and a pull that works as soon as the disk does.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use berth_e2e::cache;
use berth_e2e::client::Client;
use berth_e2e::disk::{Disk, FileSystem};
use berth_e2e::images::Image;
use berth_e2e::images::layer::{Layer, Node as Entry};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::Runtime;
use tonic::Code;

/// The layers of both images, as they should be on a disk.
type Known = BTreeMap<String, Vec<String>>;

/// One image that the node has, and one that it is to pull.
struct Images {
    _registry: Registry,
    kept: String,
    wanted: String,
}

impl Images {
    fn publish() -> Result<Self> {
        let registry = Registry::start()?;
        let text = |n: usize| vec![n as u8; 40_000];
        let base = Layer::default().file("base", 0o644, text(1)).add("tmp", 0o1777, Entry::Dir);
        let many =
            (0..60).fold(Layer::default().dir("d"), |layer, n| layer.file(&format!("d/{n}"), 0o644, text(n)));
        let kept = registry.publish("kept", "v1", &Image::of(base.clone()))?;
        let wanted = registry.publish("wanted", "v1", &Image::of(base).layer(many))?;
        Ok(Self { _registry: registry, kept, wanted })
    }
}

fn skipped() -> Result<bool> {
    let skipped = Runtime::from_env()? == Runtime::Containerd;
    if skipped {
        println!("not run: it looks into berth's own directories");
    }
    Ok(skipped)
}

async fn start(disk: &Disk) -> Result<(Node, Client)> {
    let options = Options {
        root: Some(disk.path()),
        config: "[layers]\nreserve_mib = 0\n".into(),
        ..Options::default()
    };
    let node = Node::start(&options).await?;
    let client = node.client().await?;
    Ok((node, client))
}

/// Both images pulled on a good disk.
async fn known(disk: &Disk, images: &Images) -> Result<Known> {
    let (_node, client) = start(disk).await?;
    client.pull(&images.kept).await?;
    client.pull(&images.wanted).await?;
    let known = cache::layers(&disk.path())?;
    client.remove_image(&images.wanted).await?;
    cache::expect_whole(&disk.path(), &known)?;
    Ok(known)
}

/// The words of a refused pull.
async fn refused(client: &Client, image: &str, codes: &[Code]) -> Result<Option<String>> {
    let Err(status) = client.pull(image).await else { return Ok(None) };
    ensure!(codes.contains(&status.code()), "{:?}: {}", status.code(), status.message());
    ensure!(status.message().contains(image), "{image} is not named: {}", status.message());
    Ok(Some(status.message().to_owned()))
}

#[tokio::test]
async fn a_write_that_fails_fails_the_pull_and_nothing_else() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let images = Images::publish()?;
    let mut disk = Disk::new(FileSystem::Ext4, 64)?;
    let known = known(&disk, &images).await?;
    disk.unmount()?;
    let (mut errors, mut good) = (0, 0);
    // One bad write, and a disk that is dead from then on: data, journal, and what comes after.
    for (nth, failing) in
        [0, 1, 2, 4, 8, 12, 16, 24, 32, 48].into_iter().flat_map(|n| [(n, 1), (n, u64::MAX)])
    {
        let mut disk = disk.with(disk.blocks())?;
        let (mut node, client) = start(&disk).await?;
        disk.fail(nth, failing);
        let codes = [Code::Internal, Code::FailedPrecondition, Code::DataLoss];
        let error = refused(&client, &images.wanted, &codes).await?;
        let (failed, wrong) = (disk.has_failed(failing), format!("write {nth} of {failing}: {error:?}"));
        disk.fail(0, 0);
        match &error {
            Some(text) => {
                errors += 1;
                let words = ["Input/output error", "Read-only file system", "I/O error", "readonly database"];
                ensure!(words.iter().any(|word| text.contains(word)), "{wrong}");
            }
            None => good += 1,
        }
        ensure!(failed || error.is_none(), "no write failed, and yet: {wrong}");
        ensure!(client.image(&images.kept).await?.is_some(), "{wrong}");
        ensure!(client.image(&images.wanted).await?.is_some() == error.is_none(), "{wrong}");
        node.kill()?;
        drop(node);
        // The disk is exchanged for a good one with the same content, and the file system repairs itself.
        disk.unmount()?;
        let disk = disk.with(disk.blocks())?;
        let (_node, client) = start(&disk).await?;
        ensure!(client.image(&images.kept).await?.is_some(), "{wrong}");
        client.pull(&images.wanted).await.context(wrong.clone())?;
        cache::expect_whole(&disk.path(), &known).context(wrong)?;
    }
    println!("{errors} pulls failed, {good} succeeded");
    ensure!(errors >= 5, "hardly any pull failed");
    Ok(())
}

#[tokio::test]
async fn a_file_system_that_turned_read_only_refuses_pulls_and_still_answers() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let images = Images::publish()?;
    let mut disk = Disk::new(FileSystem::Ext4, 64)?;
    let known = known(&disk, &images).await?;
    let (node, client) = start(&disk).await?;
    disk.turn_read_only()?;
    let error = refused(&client, &images.wanted, &[Code::FailedPrecondition]).await?;
    ensure!(error.as_ref().is_some_and(|text| text.contains("Read-only file system")), "{error:?}");
    ensure!(client.list_images().await?.len() == 1, "reading needs no writes");
    drop(node);
    disk.unmount()?;
    let disk = disk.with(disk.blocks())?;
    let (_node, client) = start(&disk).await?;
    client.pull(&images.wanted).await?;
    cache::expect_whole(&disk.path(), &known)
}

/// Fills a disk until `left` of what `fill` takes is left, pulls, and gives it all back.
async fn full(system: FileSystem, fill: impl Fn(&Path, u64) -> Result<()>, lefts: &[u64]) -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let images = Images::publish()?;
    let disk = Disk::new(system, 48)?;
    let known = known(&disk, &images).await?;
    let (_node, client) = start(&disk).await?;
    let filler = disk.path().join("filler");
    let mut errors = 0;
    for left in lefts {
        let before = cache::bytes(&disk.path().join("layers"))?;
        std::fs::create_dir(&filler)?;
        fill(&filler, *left)?;
        let error = refused(&client, &images.wanted, &[Code::ResourceExhausted])
            .await
            .context(format!("{left} left"))?;
        if let Some(text) = &error {
            errors += 1;
            ensure!(text.contains("No space left on device") || text.contains("disk is full"), "{text}");
            cache::expect_whole(&disk.path(), &known)?;
            ensure!(cache::bytes(&disk.path().join("layers"))? == before, "space is not given back");
        }
        ensure!(
            client.list_images().await?.len() == 1 + usize::from(error.is_none()),
            "{left} left: {error:?}"
        );
        // Also on a full disk: that is how a kubelet makes room.
        for image in [&images.wanted, &images.kept] {
            client.remove_image(image).await.with_context(|| format!("{left} left"))?;
        }
        cache::expect_empty(&disk.path().join("layers"))?;
        std::fs::remove_dir_all(&filler)?;
        for image in [&images.kept, &images.wanted] {
            client.pull(image).await.with_context(|| format!("{left} were left"))?;
        }
        cache::expect_whole(&disk.path(), &known)?;
        client.remove_image(&images.wanted).await?;
    }
    println!("{system:?}: {errors} of {} pulls failed", lefts.len());
    ensure!(errors >= lefts.len() / 2, "hardly any pull failed");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_told_and_works_again_when_there_is_room() -> Result<()> {
    // Of 2.4 MB that the image takes.
    let lefts = [0, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 3 << 20];
    full(FileSystem::Ext4, fill_bytes, &lefts).await
}

fn fill_bytes(directory: &Path, left: u64) -> Result<()> {
    let path = directory.join("bytes");
    let free = || -> Result<u64> {
        let stat = nix::sys::statvfs::statvfs(directory)?;
        Ok(stat.blocks_free() * stat.fragment_size())
    };
    let file = std::fs::File::create(&path)?;
    for size in [1_u64 << 20, 64 << 10, 4 << 10] {
        while free()? >= left + size {
            let len = file.metadata()?.len();
            if nix::fcntl::posix_fallocate(&file, len.cast_signed(), size.cast_signed()).is_err() {
                break;
            }
        }
    }
    Ok(file.sync_all()?)
}

#[tokio::test]
async fn a_disk_without_inodes_is_told_and_works_again_when_there_are_some() -> Result<()> {
    // Of some 70 that the image takes.
    full(FileSystem::Ext4Inodes(512), fill_inodes, &[0, 1, 2, 4, 8, 30, 60, 150]).await
}

fn fill_inodes(directory: &Path, left: u64) -> Result<()> {
    let mut number = 0;
    while nix::sys::statvfs::statvfs(directory)?.files_free() > left {
        std::fs::write(directory.join(number.to_string()), "")?;
        number += 1;
    }
    Ok(())
}
