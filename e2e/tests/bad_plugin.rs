//! CNI plugins that fail: the pod fails with the plugin's name and the cause, nothing is left, and the next pod comes
//! up once the plugin is mended.

use anyhow::Result;
use berth_e2e::client::expect_refusal;
use berth_e2e::node::Options;
use berth_e2e::runtime::{Runtime, tool};
use berth_e2e::world::World;
use tonic::Code;

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"broken","plugins":[{"type":"broken"}]}"#;

/// Answers DEL as it should, ADD with `script`.
fn install(world: &World, script: &str) -> Result<()> {
    let path = world.node.plugin_dir().join("broken");
    std::fs::create_dir_all(world.node.plugin_dir())?;
    std::fs::write(&path, format!("#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{script}\n"))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_fails_hangs_or_babbles_is_named() -> Result<()> {
    let world = World::start_with(Options { cni: true, ..Options::default() }).await?;
    if world.node.runtime() == Runtime::Containerd || tool("cni", "bridge").is_err() {
        println!("not run: needs Berth and `e2e/tools/build cni`");
        return Ok(());
    }
    let before = world.settled_census().await?;
    let list = world.node.conf_dir().join("00-broken.conflist");
    std::fs::write(&list, LIST)?;
    let refused =
        [Code::Unavailable, Code::FailedPrecondition, Code::Internal, Code::NotFound, Code::DeadlineExceeded];
    expect_refusal(world.client.run_pod(&world.pod("missing")).await, &refused, &["broken"]);
    let error = r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"no address is left"}'; exit 1"#;
    for (name, script, word) in [
        ("fails", error, "no address is left"),
        ("babbles", "echo not json at all", "broken"),
        ("silent", "exit 3", "broken"),
        ("hangs", "exec sleep 1000", "broken"),
    ] {
        install(&world, script)?;
        expect_refusal(world.client.run_pod(&world.pod(name)).await, &refused, &["broken", word]);
        world.expect_nothing_left(&before).await?;
    }
    std::fs::remove_file(list)?;
    world.client.run_pod(&world.pod("mended")).await?;
    Ok(())
}
