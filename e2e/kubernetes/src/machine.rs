//! The node's own machine: a file system of a size that nobody else fills, and addresses that nobody else has.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use crate::directory::Directory;

/// Bytes of the node's disk; sparse, so it costs what is written.
const DISK: u64 = 16 << 30;
/// The node's address.
pub const ADDRESS: &str = "10.0.0.10";
/// The cluster IP of the API. Without kube-proxy nobody translates it, so the node has it, and the API server listens.
pub const API: &str = "10.96.0.1";

/// Makes disk and network of the namespaces in which this runs.
pub fn prepare(directory: &Directory) -> Result<()> {
    let image = directory.disk_image();
    std::fs::File::create(&image)?.set_len(DISK)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    run("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", &text(&image)])?;
    run("mount", &["-o", "loop,noatime", &text(&image), &text(&directory.disk())])?;
    for path in [directory.var_log(), directory.kubelet_root(), directory.static_pods()] {
        std::fs::create_dir_all(path)?;
    }
    // The kubelet links all containers' logs in /var/log/containers, wherever it keeps its own files.
    mount(Some(&directory.var_log()), "/var/log", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("mount /var/log")?;
    own_the_host(directory)?;
    std::fs::write(directory.resolv_conf(), "nameserver 10.96.0.10\n")?;
    for arguments in [
        "link set lo up",
        "link add node0 type bridge",
        &format!("address add {ADDRESS}/24 dev node0"),
        &format!("address add {API}/32 dev node0"),
        "link set node0 up",
    ] {
        run("ip", &arguments.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// What pods, kubelet and installers write where a node has it shall not be on the machine that this runs on.
fn own_the_host(directory: &Directory) -> Result<()> {
    let etc = directory.host("etc");
    std::fs::create_dir_all(etc.parent().context("no parent")?)?;
    run("cp", &["-a", "/etc", &etc.to_string_lossy()])?;
    for name in ["etc", "opt", "run", "var/lib"] {
        let (ours, place) = (directory.host(name), Path::new("/").join(name));
        std::fs::create_dir_all(&ours)?;
        mount(Some(&ours), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("mount {}", place.display()))?;
    }
    // Its own place for units, as on a node that has systemd.
    Ok(std::fs::create_dir_all("/etc/systemd/system")?)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    said(Command::new(program).args(arguments)).map(drop)
}

/// A program's standard output, trimmed; a failure holds what it said.
pub fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{command:?}: {} {}", text(&output.stderr), text(&output.stdout));
    }
    Ok(text(&output.stdout))
}
