//! Pulls of large images from a registry on the same machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::registry::Registry;

use super::memory::{cpu, peak, reset_peak};
use super::report::{Results, Unit};
use super::{Contender, Flags};

/// ext4 takes no inode again within a minute of its removal, and looks long for another where many were removed
/// (`recently_deleted` in its ialloc.c): a pull of 200,000 files after another takes five times as long.
const FORGOTTEN: Duration = Duration::from_secs(70);
/// The image whose removal goes on for minutes: it is pulled once, and best as the last.
pub const MANY_FILES: &str = "200,000 files";

/// All pulls: image by image, the runtimes in turn. Nobody's is removed before all have it, and nobody pulls soon after.
pub async fn measure(
    flags: &Flags,
    contenders: &[Contender],
    (registry, images): (&Registry, &[(String, String)]),
    results: &mut Results,
) -> Result<()> {
    // The network makes no difference to a pull: of two Berths one is enough.
    let contenders: Vec<_> =
        contenders.iter().filter(|c| c.name != "berth-cni" || contenders.len() == 1).collect();
    let pulls = |what: &str| if what == MANY_FILES { 1 } else { flags.pulls };
    let rounds = images.iter().flat_map(|image| std::iter::repeat_n(image, pulls(&image.0)));
    for (number, (what, image)) in rounds.enumerate() {
        if number > 0 {
            tokio::time::sleep(FORGOTTEN).await;
        }
        for contender in &contenders {
            one(contender, registry, (what, image), results).await?;
        }
        for contender in &contenders {
            contender.node.client().await?.remove_image(image).await?;
        }
    }
    Ok(())
}

async fn one(
    contender: &Contender,
    registry: &Registry,
    (what, image): (&str, &str),
    results: &mut Results,
) -> Result<()> {
    let client = contender.node.client().await?;
    let daemon = contender.node.pid().context("the daemon does not run")?;
    settle().await;
    reset_peak(daemon)?;
    let (start, busy, served) = (Instant::now(), cpu(daemon)?, cpu(registry.pid())?);
    client.pull(image).await?;
    let took = start.elapsed().as_secs_f64();
    let (busy, served) = (cpu(daemon)? - busy, cpu(registry.pid())? - served);
    results.add(&contender.name, &format!("pull, {what}"), Unit::Seconds, took);
    results.add(&contender.name, &format!("CPU time, pull {what}"), Unit::Seconds, busy);
    results.add(&contender.name, &format!("CPU time of the registry, pull {what}"), Unit::Seconds, served);
    results.add(&contender.name, &format!("peak RSS, pull {what}"), Unit::Kibibytes, peak(daemon)? as f64);
    eprintln!(
        "pull {what}: {} {took:.1} s, {busy:.1} s of CPU, the registry's {served:.1} s",
        contender.name
    );
    Ok(())
}

/// What was written before is not to be written during the next pull; removal goes on in the background.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
    nix::unistd::sync();
}
