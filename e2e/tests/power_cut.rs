//! The power fails at any moment of pulls and removals. What a new daemon finds on the disk is whole: layers to the last
//! attribute, images with all their layers, and every image whose pull was answered. Then everything can be pulled again,
//! and removed without a trace.
//!
//! A daemon works on a disk that remembers each write and flush; then the disk is put together as it was at a moment, less
//! any part of what was not flushed by then, mounted, and given to a new daemon. `BERTH_E2E_CUTS` says how many moments
//! (`make e2e-powercut`); a failure prints the moment, and what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_e2e::cache;
use berth_e2e::client::Client;
use berth_e2e::disk::{Chance, Disk, FileSystem, Loss};
use berth_e2e::images::layer::{Layer, Node as Entry};
use berth_e2e::images::{Artifact, Image};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::{Runtime, berth};

const CUTS: usize = 5;

#[tokio::test]
async fn ext4_has_whole_images_after_a_power_cut() -> Result<()> {
    cut_everywhere(FileSystem::Ext4, 128).await
}

#[tokio::test]
async fn xfs_has_whole_images_after_a_power_cut() -> Result<()> {
    cut_everywhere(FileSystem::Xfs, 320).await
}

async fn cut_everywhere(system: FileSystem, mib: u64) -> Result<()> {
    if Runtime::from_env()? == Runtime::Containerd {
        println!("not run: it looks into berth's own directories");
        return Ok(());
    }
    let cuts = std::env::var("BERTH_E2E_CUTS").ok().map_or(Ok(CUTS), |cuts| cuts.parse())?;
    let registry = Registry::start()?;
    let names = publish(&registry)?;
    let mut disk = Disk::new(system, mib)?;
    let story = Story::live(&disk, &names).await?;
    disk.unmount()?;
    let history = disk.recorded()?;
    println!("{system:?}: {} writes and flushes, {} of them flushes", history.len(), history.flushes());
    ensure!(history.flushes() > 20, "the recording has hardly any flushes");
    let (mut replay, mut chance) = (history.replay(), Chance(7));
    let step = story.end as f64 / cuts as f64;
    for cut in 0..cuts {
        // Anywhere in its part of the story; the last is its very end.
        let within = (chance.draw() % 1000) as f64 / 1000.0;
        let at = if cut + 1 == cuts { story.end } else { ((cut as f64 + within) * step) as usize };
        let loss = match cut % 4 {
            0 => Loss::Writes(cut as u64),
            1 => Loss::All,
            2 => Loss::Sectors(cut as u64),
            _ => Loss::None,
        };
        let examined = async { story.examine(&disk.with(replay.cut(at, loss))?, at).await };
        examined
            .await
            .with_context(|| format!("{system:?} cut {cut}, behind write {at}, which lost {loss:?}"))?;
    }
    println!("{system:?}: {cuts} cuts");
    Ok(())
}

/// Content that does not pack to nothing.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut chance = Chance(seed);
    std::iter::repeat_with(|| chance.draw().to_le_bytes()).flatten().take(len).collect()
}

/// Images of every kind of layer: shared ones, one that implies directories of those below, one that links to a file
/// below and so stands on its parents, many small ones, and an artifact.
fn publish(registry: &Registry) -> Result<Vec<String>> {
    let base = Layer::default()
        .add("tmp", 0o1777, Entry::Dir)
        .add("usr", 0o750, Entry::Dir)
        .dir("usr/lib")
        .file("usr/lib/data", 0o4755, noise(1, 900_000))
        .hardlink("usr/same", "usr/lib/data")
        .symlink("lib", "usr/lib")
        .add("pipe", 0o600, Entry::Fifo);
    let many = (0..300).fold(Layer::default().dir("many"), |layer, n| {
        layer.file(&format!("many/{n}"), 0o644, noise(n, 1 + (n as usize * 37) % 9000))
    });
    let implies =
        Layer::default().file("tmp/file", 0o600, noise(2, 20_000)).whiteout("usr/same").opaque("many");
    let links = Layer::default().hardlink("linked", "usr/lib/data").file("own", 0o644, noise(3, 50_000));
    let images = [
        ("plain", Image::of(base.clone()).layer(many.clone())),
        ("shares", Image::of(base.clone()).layer(many).layer(implies)),
        ("links", Image::of(base).layer(links)),
        (
            "small",
            (0..12).fold(Image::default(), |image, n| {
                image.layer(Layer::default().file(&format!("{n}"), 0o644, noise(n, 3000)))
            }),
        ),
    ];
    let mut names = Vec::new();
    for (name, image) in images {
        names.push(registry.publish(name, "v1", &image)?);
    }
    let artifact =
        Artifact::new("application/vnd.example.model").file("weights", noise(4, 400_000)).build()?;
    registry.storage().publish("model", "v1", &artifact)?;
    names.push(registry.reference("model:v1"));
    Ok(names)
}

/// One call, from before it was made to after it was answered.
struct Step {
    image: usize,
    /// Afterwards the image is there; else it is not.
    pulled: bool,
    begin: usize,
    end: usize,
}

/// What happened while the disk remembered.
struct Story {
    names: Vec<String>,
    steps: Vec<Step>,
    /// Every layer that there ever was.
    layers: BTreeMap<String, Vec<String>>,
    end: usize,
}

async fn start(disk: &Disk) -> Result<Node> {
    let config = "[layers]\nreserve_mib = 1\n".to_string();
    Node::start(&Options { root: Some(disk.path()), config, ..Options::default() }).await
}

/// The daemon's own opinion of what it has: each layer against the seal in its record.
fn verify(node: &Node) -> Result<()> {
    let output =
        Command::new(berth()?).args(["image", "--socket"]).arg(node.socket()).arg("verify").output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(told.contains("all whole"), "{told}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Story {
    async fn live(disk: &Disk, names: &[String]) -> Result<Self> {
        let mut node = start(disk).await?;
        let client = node.client().await?;
        let mut story = Self { names: names.to_vec(), steps: Vec::new(), layers: BTreeMap::new(), end: 0 };
        disk.record();
        for (pulled, images) in [
            (true, &[0][..]),
            (true, &[1, 2]),
            (false, &[0]),
            (true, &[3, 4, 0]),
            (false, &[2, 3]),
            (true, &[2]),
            (false, &[4, 0]),
        ] {
            story.step(disk, &client, pulled, images).await?;
        }
        story.end = disk.now();
        node.kill()?;
        Ok(story)
    }

    /// Some calls at the same time.
    async fn step(&mut self, disk: &Disk, client: &Client, pulled: bool, images: &[usize]) -> Result<()> {
        let calls = images.iter().map(async |image| {
            let (name, begin) = (&self.names[*image], disk.now());
            if pulled {
                client.pull(name).await?;
            } else {
                client.remove_image(name).await?;
            }
            anyhow::Ok(Step { image: *image, pulled, begin, end: disk.now() })
        });
        let steps = futures_util::future::try_join_all(calls).await?;
        self.steps.extend(steps);
        for (name, found) in cache::layers(&disk.path())? {
            let known = self.layers.entry(name.clone()).or_insert_with(|| found.clone());
            ensure!(*known == found, "layer {name} was unpacked in two ways: {known:#?} {found:#?}");
        }
        Ok(())
    }

    /// Whether an image must be there after a cut at a moment; None where a call about it was under way.
    fn there(&self, image: usize, at: usize) -> Option<bool> {
        let mut begun = self.steps.iter().filter(|step| step.image == image && step.begin <= at);
        begun.next_back().map_or(Some(false), |step| (step.end <= at).then_some(step.pulled))
    }

    /// The disk is mounted as a power cut at a moment left it.
    async fn examine(&self, disk: &Disk, at: usize) -> Result<()> {
        let mut node = start(disk).await?;
        let client = node.client().await?;
        let listed: BTreeSet<String> =
            client.list_images().await?.into_iter().flat_map(|image| image.repo_tags).collect();
        for (image, name) in self.names.iter().enumerate() {
            if let Some(expected) = self.there(image, at) {
                ensure!(
                    listed.contains(name) == expected,
                    "{name} should be there: {expected}\n{}",
                    node.log()
                );
            }
        }
        cache::expect_whole(&disk.path(), &self.layers).with_context(|| node.log())?;
        verify(&node)?;
        for name in &self.names {
            client.pull(name).await.with_context(|| format!("pull {name}\n{}", node.log()))?;
        }
        cache::expect_whole(&disk.path(), &self.layers).context("after new pulls")?;
        let there: BTreeSet<_> = cache::layers(&disk.path())?.into_keys().collect();
        ensure!(there == self.layers.keys().cloned().collect(), "not all layers came back: {there:?}");
        for name in &self.names {
            client.remove_image(name).await?;
        }
        for directory in ["layers", "blobs", "trash"] {
            cache::expect_empty(&disk.path().join(directory))?;
        }
        node.kill()
    }
}
