//! Log rotation, as fast as it goes, while a container writes: no line is lost, doubled or torn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::logs;
use berth_e2e::world::World;
use berth_e2e::{bound, eventually};

const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_rotations_lose_no_line() -> Result<()> {
    let world = World::start().await?;
    // Lines of all lengths, also such as are longer than a record.
    let script = "long=$(head -c 20000 /dev/zero | tr '\\0' x); \
                  i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; \
                  [ $((i % 50)) = 0 ] && echo $long; done; echo end $i; sleep 1000";
    let (_, id) = world.run(&world.pod("rotate"), &world.container("main", script)).await?;
    let path = world.client.status(&id).await?.log_path;
    let begin = Instant::now();
    let mut rotated = Vec::new();
    while rotated.len() < 2000 {
        ensure!(begin.elapsed() < bound(LONG), "only {} rotations", rotated.len());
        let old = format!("{path}.{:04}", rotated.len());
        std::fs::rename(&path, &old)?;
        world.client.reopen_log(&id).await?;
        ensure!(std::path::Path::new(&path).exists(), "the new file is there when the call returns");
        rotated.push(old);
    }
    println!("{:.0} rotations a second", 2000.0 / begin.elapsed().as_secs_f64());
    world.client.shell(&id, "touch /tmp/stop").await?;
    rotated.push(path.clone());
    let last: u32 = eventually(LONG, async || {
        let text = logs::text(&path)?;
        let last = text.lines().find_map(|line| line.strip_prefix("end "));
        Ok(last.context("the container does not end")?.parse()?)
    })
    .await?;
    let mut whole = String::new();
    for file in &rotated {
        // Each file holds whole records, or this fails.
        whole += &logs::text(file).with_context(|| format!("in {file}"))?;
    }
    let mut expected = String::new();
    for number in 1..=last {
        expected += &format!("{number}\n");
        if number % 50 == 0 {
            expected += &"x".repeat(20_000);
            expected.push('\n');
        }
    }
    expected += &format!("end {last}\n");
    assert!(whole == expected, "{} of {} bytes", whole.len(), expected.len());
    Ok(())
}
