//! `make bench`: Berth beside containerd with runc, through CRI, in one run. The runtimes take turns in every round,
//! so that what else the machine does meets all of them; medians are told.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_e2e::images::{Compression, big, catalog};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::Runtime;
use clap::Parser;

mod host;
mod lists;
mod memory;
mod pods;
mod pull;
mod report;
mod rotations;

use report::Results;

/// What to measure, and how often.
#[derive(Clone, Debug, Parser)]
pub struct Flags {
    /// Runtimes in order; ratios are against the first.
    #[arg(long, env = "BENCH_RUNTIMES", value_delimiter = ',', default_value = "containerd,berth,berth-cni")]
    runtimes: Vec<String>,
    /// Rounds of pods and execs; every runtime has its turn in each.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 5)]
    rounds: usize,
    /// Pods, one after another, in a turn.
    #[arg(long, default_value_t = 12)]
    pods: usize,
    /// Execs in a turn.
    #[arg(long, default_value_t = 40)]
    execs: usize,
    /// Seconds of pods by eight clients in a turn; two turns each; 0 leaves it out.
    #[arg(long, default_value_t = 8)]
    burst: u64,
    /// Pods that are up while memory is read; 0 leaves it out.
    #[arg(long, default_value_t = 20)]
    memory_pods: usize,
    /// Running containers whose stats are listed, in tens; 0 leaves lists out.
    #[arg(long, default_value_t = 200)]
    containers: usize,
    /// Containers, running or created, that are listed.
    #[arg(long, default_value_t = 1000)]
    listed: usize,
    /// Whether logs are rotated.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    rotations: bool,
    /// Images to pull: five large layers as `gzip` and as `zstd`, 128 small `layers`, a layer of 200,000 small `files`;
    /// `none` leaves it out.
    #[arg(long, env = "BENCH_PULL", value_delimiter = ',', default_value = "gzip,zstd,layers,files")]
    pull: Vec<String>,
    /// How often each image is pulled by each runtime; that of many files once.
    #[arg(long, default_value_t = 3)]
    pulls: usize,
    /// Where the numbers go.
    #[arg(long, env = "BENCH_JSON", default_value = "target/bench.json")]
    json: PathBuf,
}

/// One runtime in the race.
pub struct Contender {
    name: String,
    node: Node,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let _memory = host::Memory::take()?;
    let registry = Registry::start()?;
    registry.storage().publish("pause", "3.9", &catalog::pause()?.build()?)?;
    let busybox = registry.publish("busybox", "latest", &catalog::busybox()?)?;
    let images = publish_big(&flags, &registry)?;

    let mut contenders = Vec::new();
    for name in &flags.runtimes {
        let (runtime, cni) = match name.as_str() {
            "containerd" => (Runtime::Containerd, true),
            "berth" => (Runtime::Berth, false),
            "berth-cni" => (Runtime::Berth, true),
            other => bail!("--runtimes {other}: not one of containerd, berth, berth-cni"),
        };
        let options = Options { cni, mirror: Some(registry.host()), ..Options::default() };
        let node = Node::start_as(runtime, &options).await.with_context(|| format!("start {name}"))?;
        node.client().await?.pull(&busybox).await?;
        contenders.push(Contender { name: name.clone(), node });
    }

    let mut results = Results::new(&flags.runtimes);
    pods::measure(&flags, &contenders, &busybox, &mut results).await?;
    memory::measure(&flags, &contenders, &busybox, &mut results).await?;
    rotations::measure(&flags, &contenders, &busybox, &mut results).await?;
    lists::measure(&flags, &contenders, &busybox, &mut results).await?;
    pull::measure(&flags, &contenders, (&registry, &images), &mut results).await?;
    println!("{}", results.table());
    results.write(&flags.json)
}

/// Names of the images to be pulled, with what each is.
fn publish_big(flags: &Flags, registry: &Registry) -> Result<Vec<(String, String)>> {
    let mut images = Vec::new();
    for name in flags.pull.iter().filter(|name| *name != "none") {
        let (what, image) = match name.as_str() {
            "gzip" => ("gzip", big::large(Compression::Gzip)),
            "zstd" => ("zstd", big::large(Compression::Zstd)),
            "layers" => ("128 layers", big::many_layers()),
            "files" => (pull::MANY_FILES, big::many_files()),
            other => bail!("--pull {other}: not one of gzip, zstd, layers, files, none"),
        };
        registry.storage().publish("big", name, &image?)?;
        images.push((what.to_owned(), registry.reference(&format!("big:{name}"))));
    }
    Ok(images)
}
