//! `berth config import` on what containerd itself prints as its configuration.

use std::process::Command;

use anyhow::Result;
use berth_e2e::runtime::{Runtime, berth, tool};

#[test]
fn containerd_s_own_default_configuration_has_its_equal() -> Result<()> {
    let Ok(containerd) = tool("containerd", "containerd") else {
        println!("not run: needs `e2e/tools/build containerd`");
        return Ok(());
    };
    if Runtime::from_env()? != Runtime::Berth {
        println!("not run: it is about a command of berth's");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (file, made) = (dir.path().join("config.toml"), dir.path().join("berth.toml"));
    let default = Command::new(containerd).args(["config", "default"]).output()?;
    anyhow::ensure!(default.status.success(), "{}", String::from_utf8_lossy(&default.stderr));
    // What it imports is this machine's own.
    let text = String::from_utf8(default.stdout)?.replace("/etc/containerd/conf.d", "/no/such/directory");
    std::fs::write(&file, &text)?;
    let import = Command::new(berth()?).args(["config", "import", "--verbose"]).arg(&file).output()?;
    let told = String::from_utf8_lossy(&import.stderr);
    assert_eq!(import.status.code(), Some(0), "{told}");
    assert!(!told.contains("Without an equal") && told.contains("snapshotter = \"overlayfs\""), "{told}");
    std::fs::write(&made, &import.stdout)?;
    let made_text = String::from_utf8_lossy(&import.stdout);
    for line in [
        "driver = \"cgroupfs\"",
        "bin_dirs = [\"/opt/cni/bin\"]",
        "idle_timeout = \"4h\"",
        "no_progress = \"5m\"",
    ] {
        assert!(made_text.lines().any(|made| made == line), "{line}\n{made_text}");
    }
    // The daemon's own reader takes it; whether this node can run pods is another question.
    let check = Command::new(berth()?).args(["check", "--config"]).arg(&made).output()?;
    assert!(check.stderr.is_empty(), "{}", String::from_utf8_lossy(&check.stderr));

    // A setting that changes what pods get is named, and the exit code says so.
    std::fs::write(
        &file,
        text.replace("enable_unprivileged_ports = true", "enable_unprivileged_ports = false"),
    )?;
    let import = Command::new(berth()?).args(["config", "import"]).arg(&file).output()?;
    let told = String::from_utf8_lossy(&import.stderr);
    assert_eq!(import.status.code(), Some(2), "{told}");
    assert!(told.contains("enable_unprivileged_ports = false"), "{told}");
    Ok(())
}
