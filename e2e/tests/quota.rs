//! The limit of writable layers: what is above it is refused by the file system, in that container alone, and what a
//! container has written is known at once.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_e2e::disk::{Disk, FileSystem};
use berth_e2e::node::Options;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;
use berth_proto::cri::v1::{ContainerStatsRequest, RuntimeCondition, StatusRequest};

const MIB: u64 = 1 << 20;

fn skipped() -> Result<bool> {
    let skipped = Runtime::from_env()? == Runtime::Containerd;
    if skipped {
        println!("not run: it is about a key of berth's configuration");
    }
    Ok(skipped)
}

/// With a root directory on this disk, and 20 MiB for each container.
async fn limited(disk: &Disk) -> Result<World> {
    let config = "[layers]\nwritable_limit_mib = 20\n".into();
    World::start_with(Options { root: Some(disk.path()), config, ..Options::default() }).await
}

async fn condition(world: &World) -> Result<RuntimeCondition> {
    let status = world.client.runtime.clone().status(StatusRequest::default()).await?.into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    conditions.into_iter().find(|one| one.r#type == "WritableLimitReady").context("no such condition")
}

#[tokio::test]
async fn ext4_limits_each_container() -> Result<()> {
    limits(FileSystem::Ext4Quota, 160).await
}

#[tokio::test]
async fn xfs_limits_each_container() -> Result<()> {
    limits(FileSystem::XfsQuota, 400).await
}

async fn limits(system: FileSystem, mib: u64) -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    // Of XFS the quotas are built in or not; where ext4 has none, that kernel was made without.
    if !Command::new("modprobe").arg("quota_v2").status().is_ok_and(|status| status.success()) {
        println!("not run: this kernel has no project quotas; `make e2e-vm` has one that does");
        return Ok(());
    }
    let disk = Disk::new(system, mib)?;
    let mut world = limited(&disk).await?;
    let now = condition(&world).await?;
    ensure!(now.status, "{now:?}");
    let (_, greedy) = world.run(&world.pod("greedy"), &world.sleeper("main")).await?;
    let (_, modest) = world.run(&world.pod("modest"), &world.sleeper("main")).await?;
    for _ in 0..2 {
        let told = world
            .client
            .shell(&greedy, "dd if=/dev/zero of=/big bs=65536 count=640 2>&1; sync; true")
            .await?;
        ensure!(told.contains("quota exceeded") || told.contains("No space left"), "{told}");
        let size: u64 = world.client.shell(&greedy, "wc -c < /big").await?.trim().parse()?;
        ensure!((18 * MIB..=20 * MIB).contains(&size), "{size}");
        let used = written(&world, &greedy).await?;
        ensure!((size..=20 * MIB).contains(&used), "{used} of {size}");
        world.client.shell(&modest, "dd if=/dev/zero of=/some bs=65536 count=80 && sync").await?;
        let used = written(&world, &modest).await?;
        ensure!((5 * MIB..6 * MIB).contains(&used), "{used}");
        world.client.shell(&greedy, "rm /big; sync").await?;
        let used = written(&world, &greedy).await?;
        ensure!(used < MIB, "{used} are left");
        // The next daemon counts on, and does not give a container's number to another.
        world.node.kill()?;
        world.node.launch().await?;
        world.client = world.node.client().await?;
        let (_, third) = world.run(&world.pod("third"), &world.sleeper("main")).await?;
        let used = written(&world, &third).await?;
        ensure!(used < MIB, "{used} were there before");
    }
    Ok(())
}

/// Bytes of a container's writable layer.
async fn written(world: &World, container: &str) -> Result<u64> {
    let request = ContainerStatsRequest { container_id: container.into() };
    let stats = world.client.runtime.clone().container_stats(request).await?.into_inner().stats;
    Ok(stats
        .unwrap_or_default()
        .writable_layer
        .and_then(|layer| layer.used_bytes)
        .context("nothing is known")?
        .value)
}

#[tokio::test]
async fn a_limit_that_the_file_system_cannot_keep_is_told() -> Result<()> {
    if skipped()? {
        return Ok(());
    }
    let disk = Disk::new(FileSystem::Ext4, 96)?;
    let world = limited(&disk).await?;
    let now = condition(&world).await?;
    ensure!(!now.status && now.reason == "Unsupported", "{now:?}");
    ensure!(
        now.message.contains("writable_limit_mib is not in force: ") && now.message.contains("prjquota"),
        "{now:?}"
    );
    let (_, id) = world.run(&world.pod("free"), &world.sleeper("main")).await?;
    world.client.shell(&id, "dd if=/dev/zero of=/big bs=65536 count=400").await?;
    Ok(())
}
