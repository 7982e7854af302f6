//! All of a cluster: starts it, keeps its daemons running, and ends it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_e2e::node::{Node, Options};
use berth_e2e::registry::Registry;
use berth_e2e::runtime::tool;

use crate::control_plane::{ControlPlane, program, tail};
use crate::daemon::Daemon;
use crate::directory::Directory;
use crate::isolation::NODE;
use crate::{credentials, images, kubelet, machine};

/// A running cluster. Fields are dropped in order: the kubelet first, or it would start again what the node ends.
pub struct Cluster {
    kubelet: Daemon,
    node: Node,
    _registry: Registry,
    control_plane: ControlPlane,
    directory: Directory,
}

impl Cluster {
    /// Brings it up in the namespaces in which this runs, until its node is Ready.
    pub async fn start(directory: Directory, gates: &str) -> Result<Self> {
        machine::prepare(&directory)?;
        credentials::make(&directory, NODE)?;
        let control_plane = ControlPlane::start(&directory)?;
        let registry = Registry::start()?;
        images::publish(&registry)?;
        std::fs::write(directory.registry(), registry.host())?;
        let node = Node::start(&Options { mirror: Some(registry.host()), ..Options::default() }).await?;
        std::os::unix::fs::symlink(node.socket(), directory.socket())?;
        std::os::unix::fs::symlink(node.log_file(), directory.log("runtime"))?;
        let parent = node.cgroup_parent();
        std::fs::write(directory.cgroup(), parent.path().trim_start_matches('/'))?;
        parent.make()?;
        let kubelet = Daemon::start(kubelet::NAME, kubelet::command(&directory, &node, gates)?, &directory)?;
        let mut cluster = Self { kubelet, node, _registry: registry, control_plane, directory };
        cluster.tell_pid()?;
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Starts again what has ended.
    pub async fn mend(&mut self) -> Result<()> {
        self.control_plane.mend()?;
        self.kubelet.mend()?;
        if self.node.has_ended() {
            let _ = std::fs::remove_file(self.directory.pid("runtime"));
            if !self.directory.held("runtime").exists() {
                self.node.launch().await?;
                self.tell_pid()?;
            }
        }
        Ok(())
    }

    fn tell_pid(&self) -> Result<()> {
        let pid = self.node.pid().context("the runtime does not run")?;
        Ok(std::fs::write(self.directory.pid("runtime"), pid.to_string())?)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + berth_e2e::bound(Duration::from_secs(120));
        while Instant::now() < end {
            let mut ask = self.kubectl()?;
            ask.args([
                "get",
                "node",
                NODE,
                "-o",
                r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#,
            ]);
            if ask.output()?.stdout == b"True" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.mend().await?;
        }
        bail!("the node does not become Ready:\n{}", tail(&self.directory.log("kubelet"), 40))
    }

    fn kubectl(&self) -> Result<Command> {
        let mut command = program("kubectl")?;
        command.arg("--kubeconfig").arg(self.directory.kubeconfig("admin"));
        Ok(command)
    }

    /// A command of the user's, with kubectl, helm and crictl in its path, for the cluster.
    pub fn command(&self, words: &[String]) -> Result<Command> {
        let (name, arguments) = words.split_first().context("no command")?;
        let groups = ["kubernetes", "helm", "cri-tools"];
        let tools: Vec<PathBuf> = groups.iter().filter_map(|group| tool(group, "").ok()).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = tools.into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new(name);
        command.args(arguments).env_remove("TMPDIR");
        command.env("PATH", std::env::join_paths(paths)?);
        command.env("KUBECONFIG", self.directory.kubeconfig("admin"));
        command.env("CONTAINER_RUNTIME_ENDPOINT", format!("unix://{}", self.directory.socket().display()));
        Ok(command)
    }
}

impl Drop for Cluster {
    /// The runtime's log is on the node's disk, which goes with the namespaces.
    fn drop(&mut self) {
        let log = self.directory.log("runtime");
        let _ = std::fs::remove_file(&log);
        let _ = std::fs::copy(self.node.log_file(), log);
    }
}
