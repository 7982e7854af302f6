//! Pods: run, look, list, stop, remove.

use anyhow::Result;
use berth_e2e::world::World;
use berth_proto::cri::v1::*;

#[tokio::test]
async fn a_pod_comes_up_with_an_address_and_leaves_nothing_behind() -> Result<()> {
    let world = World::start().await?;
    let before = world.settled_census().await?;

    let config = world.pod("web");
    let id = world.client.run_pod(&config).await?;
    let status = world.client.pod_status(&id).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, config.metadata);
    let ip = status.network.unwrap_or_default().ip;
    assert!(ip.starts_with(&world.node.network().prefix()), "{ip}");

    world.client.end_pod(&id).await?;
    world.expect_nothing_left(&before).await
}
