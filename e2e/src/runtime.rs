//! The programs that can be a node: Berth, and containerd with runc to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::node::{Node, Options};

/// How long a CNI plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A CRI runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The program under test.
    Berth,
    /// The baseline.
    Containerd,
}

impl Runtime {
    /// `BERTH_E2E_RUNTIME`; Berth if it is not set.
    pub fn from_env() -> Result<Self> {
        match std::env::var("BERTH_E2E_RUNTIME").as_deref() {
            Err(_) | Ok("" | "berth") => Ok(Self::Berth),
            Ok("containerd") => Ok(Self::Containerd),
            Ok(other) => bail!("BERTH_E2E_RUNTIME={other}: neither berth nor containerd"),
        }
    }

    pub(crate) fn command(self, node: &Node) -> Result<Command> {
        match self {
            Self::Berth => {
                let mut command = Command::new(berth()?);
                command.arg("serve");
                command.arg("--root").arg(node.root()).arg("--state").arg(node.state());
                command.arg("--socket").arg(node.socket()).arg("--config").arg(node.config_file());
                command.env("BERTH_SHIM", berth_shim()?);
                command.envs(node.environment().iter().map(|(name, value)| (name, value)));
                if !node.log_filter().is_empty() {
                    command.arg("--log").arg(node.log_filter());
                }
                Ok(command)
            }
            Self::Containerd => {
                let tools = tool("containerd", "")?;
                let mut command = Command::new(tools.join("containerd"));
                command.arg("--config").arg(node.config_file());
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{}:{path}", tools.display()));
                Ok(command)
            }
        }
    }

    pub(crate) fn configuration(self, node: &Node, options: &Options) -> Result<String> {
        match self {
            Self::Berth => Ok(berth_configuration(node, options)),
            Self::Containerd => containerd_configuration(node),
        }
    }
}

/// The daemon: `BERTH_E2E_BERTH`, else the release build.
pub fn berth() -> Result<PathBuf> {
    built("BERTH_E2E_BERTH", "release/berth", "cargo build --release")
}

/// The shim: `BERTH_E2E_SHIM`, else the build of its own profile.
pub fn berth_shim() -> Result<PathBuf> {
    built("BERTH_E2E_SHIM", "shim/berth-shim", "cargo build -p berth-shim --profile shim")
}

/// What makes images and manual pages: `BERTH_E2E_DIST`, else the debug build.
pub fn dist() -> Result<PathBuf> {
    built("BERTH_E2E_DIST", "debug/berth-dist", "cargo build -p berth-dist")
}

/// Makes a program another build of itself: bytes that nobody reads follow its own. It may run meanwhile.
pub fn make_another_build(program: &Path) -> Result<()> {
    let permissions = fs::metadata(program)?.permissions();
    let mut bytes = fs::read(program)?;
    bytes.extend_from_slice(b"another build");
    // The file of a program that runs can't be written.
    fs::remove_file(program)?;
    fs::write(program, bytes)?;
    Ok(fs::set_permissions(program, permissions)?)
}

fn built(variable: &str, path: &str, how: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::repository().join("target"), PathBuf::from);
    let path = target.join("x86_64-unknown-linux-gnu").join(path);
    if !path.exists() {
        bail!("{} is not there: run `{how}` (or `make build`), or set {variable}", path.display());
    }
    Ok(path)
}

/// A program that e2e/tools/build made; an empty `name` gives the group's directory.
pub fn tool(group: &str, name: &str) -> Result<PathBuf> {
    let directory = crate::cache().join("tools").join(group);
    directory
        .canonicalize()
        .map(|directory| if name.is_empty() { directory } else { directory.join(name) })
        .with_context(|| format!("{} is not there: run e2e/tools/build {group}", directory.display()))
}

/// Where CNI plugins are: our own build, or those that the machine has.
fn plugin_dirs(node: &Node) -> Vec<PathBuf> {
    let ours = tool("cni", "").ok();
    let first = std::iter::once(node.plugin_dir());
    first.chain(ours).chain(["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from)).collect()
}

fn toml_list(paths: &[PathBuf]) -> String {
    format!("{:?}", paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>())
}

fn berth_configuration(node: &Node, options: &Options) -> String {
    let network = node.network();
    // Daemons side by side need a place each.
    let metrics =
        if options.config.contains("[metrics]") { "" } else { "[metrics]\naddress = \"127.0.0.1:0\"\n\n" };
    format!(
        "[registry]\nconfig_path = {:?}\n{}\n\n[cni]\nconf_dir = {:?}\nbin_dirs = {}\ntimeout = {}\n\n\
         [network]\nbridge = {:?}\nsubnets = [{:?}, {:?}]\n\n[cgroup]\ndriver = {:?}\n\n{metrics}{}\n",
        node.certs_dir(),
        options.registry,
        node.conf_dir(),
        toml_list(&plugin_dirs(node)),
        crate::bound(PLUGIN_TIMEOUT).as_secs(),
        network.bridge(),
        network.subnet(),
        network.subnet6(),
        node.cgroup_parent().driver().name(),
        options.config
    )
}

fn containerd_configuration(node: &Node) -> Result<String> {
    let scratch: &Path = node.scratch();
    let cri = "plugins.'io.containerd.cri.v1";
    Ok(format!(
        "version = 3\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = ['io.containerd.nri.v1.nri']\n\
         [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n\
         [{cri}.images'.pinned_images]\nsandbox = 'registry.k8s.io/pause:3.9'\n\
         [{cri}.images'.registry]\nconfig_path = {certs:?}\n\
         [{cri}.runtime']\nrestrict_oom_score_adj = true\n\
         [{cri}.runtime'.cni]\nconf_dir = {conf:?}\nbin_dirs = {bins}\n\
         [{cri}.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
         [{cri}.runtime'.containerd.runtimes.runc.options]\nBinaryName = {runc:?}\nSystemdCgroup = {systemd}\n\
         [plugins.'io.containerd.internal.v1.opt']\npath = {opt:?}\n",
        root = node.root(),
        state = node.state(),
        socket = node.socket(),
        ttrpc = scratch.join("ttrpc.sock"),
        certs = node.certs_dir(),
        conf = node.conf_dir(),
        bins = toml_list(&[tool("cni", "")?]),
        runc = tool("runc", "runc")?,
        systemd = node.cgroup_parent().driver() == crate::cgroup::Driver::Systemd,
        opt = scratch.join("opt"),
    ))
}
