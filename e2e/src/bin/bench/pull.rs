//! Pulls of large images from a registry on the same machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::memory::{cpu, peak, reset_peak};
use super::report::{Results, Unit};
use super::{Contender, Flags};

/// All pulls: image by image, the runtimes in turn.
pub async fn measure(
    flags: &Flags,
    contenders: &[Contender],
    images: &[(String, String)],
    results: &mut Results,
) -> Result<()> {
    // The network makes no difference to a pull: of two Berths one is enough.
    let contenders: Vec<_> =
        contenders.iter().filter(|c| c.name != "berth-cni" || contenders.len() == 1).collect();
    for (what, image) in images {
        for _ in 0..flags.pulls {
            for contender in &contenders {
                one(contender, what, image, results).await?;
            }
        }
    }
    Ok(())
}

async fn one(contender: &Contender, what: &str, image: &str, results: &mut Results) -> Result<()> {
    let client = contender.node.client().await?;
    let daemon = contender.node.pid().context("the daemon does not run")?;
    settle().await;
    reset_peak(daemon)?;
    let (start, busy) = (Instant::now(), cpu(daemon)?);
    client.pull(image).await?;
    let (took, busy) = (start.elapsed().as_secs_f64(), cpu(daemon)? - busy);
    results.add(&contender.name, &format!("pull, {what}"), Unit::Seconds, took);
    results.add(&contender.name, &format!("CPU time, pull {what}"), Unit::Seconds, busy);
    results.add(&contender.name, &format!("peak RSS, pull {what}"), Unit::Kibibytes, peak(daemon)? as f64);
    eprintln!("pull {what}: {} {took:.1} s, {busy:.1} s of CPU", contender.name);
    client.remove_image(image).await?;
    Ok(())
}

/// What was written before is not to be written during the next pull; removal goes on in the background.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
    nix::unistd::sync();
}
