//! Log rotations a second, one after another as a kubelet does them, while the container writes as fast as it can.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use super::report::{Results, Unit};
use super::{Contender, Flags, pods};

/// Rotations in a turn.
const ROTATIONS: usize = 250;

/// Three turns of all runtimes.
pub async fn measure(
    flags: &Flags,
    contenders: &[Contender],
    image: &str,
    results: &mut Results,
) -> Result<()> {
    if !flags.rotations {
        return Ok(());
    }
    for _ in 0..3 {
        for contender in contenders {
            let rate = turn(contender, image).await?;
            results.add(&contender.name, "log rotations while it writes", Unit::PerSecond, rate);
        }
    }
    Ok(())
}

async fn turn(contender: &Contender, image: &str) -> Result<f64> {
    let client = contender.node.client().await?;
    let write = ["sh", "-c", "while :; do echo a line that is as long as lines of a log are; done"];
    let (pod, container) = pods::up_with(&client, &contender.node, image, &write).await?;
    let log = client.status(&container).await?.log_path;
    let old = format!("{log}.1");
    let start = Instant::now();
    for _ in 0..ROTATIONS {
        fs::rename(&log, &old)?;
        client.reopen_log(&container).await?;
    }
    let rate = ROTATIONS as f64 / start.elapsed().as_secs_f64();
    pods::down(&client, &pod).await?;
    Ok(rate)
}
