//! Daemons that must not start: each says why, and what runs already goes on.

use anyhow::Result;
use berth_e2e::runtime::Runtime;
use berth_e2e::world::World;

#[tokio::test]
async fn two_daemons_do_not_share_a_state_directory() -> Result<()> {
    let world = World::start().await?;
    if world.node.runtime() == Runtime::Containerd {
        println!("not run: it is about berth's lock");
        return Ok(());
    }
    let output = std::process::Command::new(berth_e2e::runtime::berth()?)
        .arg("serve")
        .arg("--root")
        .arg(world.node.root())
        .arg("--state")
        .arg(world.node.state())
        .arg("--socket")
        .arg(world.node.scratch().join("second.sock"))
        .env("BERTH_SHIM", berth_e2e::runtime::berth_shim()?)
        .output()?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("lock"), "{output:?}");
    world.client.run_pod(&world.pod("first")).await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_line() -> Result<()> {
    if berth_e2e::runtime::Runtime::from_env()? == Runtime::Containerd {
        println!("not run: it is about berth's file");
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    for (text, word) in
        [("[registry]\nno_such_key = 1\n", "no_such_key"), ("[cni]\nconf_dir = 7\n", "line 2")]
    {
        let file = scratch.path().join("config.toml");
        std::fs::write(&file, text)?;
        let output = std::process::Command::new(berth_e2e::runtime::berth()?)
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--root")
            .arg(scratch.path().join("root"))
            .arg("--state")
            .arg(scratch.path().join("state"))
            .arg("--socket")
            .arg(scratch.path().join("sock"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("line 2") && said.contains(word), "{said}");
    }
    Ok(())
}
