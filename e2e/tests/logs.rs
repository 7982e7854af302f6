//! Container logs: the CRI format, long lines, both streams, reopening.

use std::time::Duration;

use anyhow::{Result, ensure};
use berth_e2e::client::expect_refusal;
use berth_e2e::eventually;
use berth_e2e::logs;
use berth_e2e::world::World;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn both_streams_are_told_apart() -> Result<()> {
    let world = World::start().await?;
    let script = "echo out; sleep 0.2; echo err >&2; sleep 0.2; printf 'no end'";
    let (_, id) = world.run(&world.pod("streams"), &world.container("main", script)).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    let lines = logs::lines(&status.log_path)?;
    let seen: Vec<_> = lines.iter().map(|line| (&*line.stream, &*line.text)).collect();
    assert_eq!(seen, [("stdout", "out"), ("stderr", "err"), ("stdout", "no end")]);
    assert!(lines.windows(2).all(|pair| pair[0].time <= pair[1].time), "{lines:?}");
    assert_eq!(lines[2].tag, "P", "the kubelet puts a newline behind an F");
    Ok(())
}

#[tokio::test]
async fn a_long_line_comes_in_parts_and_no_byte_is_lost() -> Result<()> {
    let world = World::start().await?;
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short";
    let (_, id) = world.run(&world.pod("long"), &world.container("main", script)).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    let lines = logs::lines(&status.log_path)?;
    let tags: String = lines.iter().map(|line| line.tag.as_str()).collect();
    assert_eq!(tags, "PPFF");
    assert!(lines[..2].iter().all(|line| line.text.len() == 16 * 1024));
    assert_eq!(logs::text(&status.log_path)?, format!("{}\nshort\n", "x".repeat(40_000)));
    Ok(())
}

#[tokio::test]
async fn much_output_is_all_there_at_the_end() -> Result<()> {
    let world = World::start().await?;
    let script = "seq 1 20000";
    let (_, id) = world.run(&world.pod("much"), &world.container("main", script)).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(logs::text(&status.log_path)? == expected);
    Ok(())
}

/// Waits for ten lines.
async fn grown(path: &str) -> Result<()> {
    eventually(PATIENCE, async || {
        let lines = logs::text(path)?.lines().count();
        ensure!(lines >= 10, "{path} does not grow: {lines} lines");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn after_reopening_lines_go_to_the_new_file() -> Result<()> {
    let world = World::start().await?;
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let (_, id) = world.run(&world.pod("reopen"), &world.container("main", script)).await?;
    let path = world.client.status(&id).await?.log_path;
    grown(&path).await?;
    let old = format!("{path}.1");
    std::fs::rename(&path, &old)?;
    world.client.reopen_log(&id).await?;
    assert!(std::path::Path::new(&path).exists(), "the new file is there when the call returns");
    let size = std::fs::metadata(&old)?.len();
    grown(&path).await?;
    assert_eq!(std::fs::metadata(&old)?.len(), size, "the old file grows no more");
    world.client.stop(&id, 0).await?;
    let numbers: Vec<u32> =
        (logs::text(&old)? + &logs::text(&path)?).lines().map(str::parse).collect::<Result<_, _>>()?;
    assert!(numbers.len() >= 20 && numbers.iter().copied().eq(1..=numbers.len() as u32), "{numbers:?}");
    expect_refusal(world.client.reopen_log(&id).await, &[Code::FailedPrecondition, Code::Unknown], &[]);
    Ok(())
}

#[tokio::test]
async fn the_background_of_an_ended_container_does_not_keep_it() -> Result<()> {
    let world = World::start().await?;
    // The child has the container's stdout still open when process 1 ends.
    let script = "sleep 1000 & echo leaving; exit 4";
    let (_, id) = world.run(&world.pod("background"), &world.container("main", script)).await?;
    let status = world.client.wait_exited(&id, PATIENCE).await?;
    assert_eq!(status.exit_code, 4);
    assert_eq!(logs::text(&status.log_path)?, "leaving\n");
    Ok(())
}
