//! `berth node` of an image's programs, as the chart's pod runs it on a host (`systemd::Host`). What does not live here: hosts.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use crate::node::{Node, Options};
use crate::runtime::{Runtime, berth, berth_shim, make_another_build};
use crate::systemd::Host;
use crate::world::World;

/// The programs as an image has them, and the configuration of a daemon that disturbs no other one.
pub struct Installer {
    directory: TempDir,
    /// What `install` is told to give the daemon.
    pub config: String,
    /// Its bridge and its cgroup are this test's alone.
    pub node: Node,
}

impl Installer {
    /// With a daemon's default options.
    pub async fn new(world: &World) -> Result<Self> {
        Self::with(world, Options::default()).await
    }

    /// With a daemon's options, but for its mirror, which is the world's.
    pub async fn with(world: &World, options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("berth-e2e-image-").tempdir()?;
        fs::copy(berth()?, directory.path().join("berth"))?;
        fs::copy(berth_shim()?, directory.path().join("berth-shim"))?;
        let options = Options { mirror: Some(world.registry.host()), ..options };
        let mut node = Node::start_as(Runtime::Berth, &options).await?;
        node.stop()?;
        let config = fs::read_to_string(node.config_file())?;
        Ok(Self { directory, config, node })
    }

    /// From now on it is another version.
    pub fn upgrade(&self) -> Result<()> {
        make_another_build(&self.directory.path().join("berth"))
    }

    /// What `berth node` says, or why it fails.
    pub async fn node(&self, host: &Host, arguments: &[&str]) -> Result<Result<String, String>> {
        let config = self.directory.path().join("config.toml");
        fs::write(&config, &self.config)?;
        let mut command = Command::new(self.directory.path().join("berth"));
        command.arg("node").args(arguments).arg("--root").arg(host.root());
        command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("NODE_NAME").env_remove("POD_UID");
        if arguments[0] == "install" {
            command.arg("--config").arg(config).args(["--healthz", host.healthz()]);
        }
        let output = command.output();
        let output = tokio::time::timeout(crate::bound(Duration::from_secs(60)), output);
        let output = output.await.with_context(|| format!("berth node {arguments:?} hangs"))??;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok(if output.status.success() { Ok(said) } else { Err(said) })
    }

    /// What `berth node` says; it must not fail.
    pub async fn good(&self, host: &Host, arguments: &[&str]) -> Result<String> {
        match self.node(host, arguments).await? {
            Ok(said) => Ok(said),
            Err(said) => {
                let log = |name: &str| fs::read_to_string(host.root().join(name)).unwrap_or_default();
                bail!("berth node {arguments:?}: {said}\n{}\n{}", log("daemon.log"), log("transient.log"))
            }
        }
    }

    /// Why `berth node` fails, as it must.
    pub async fn bad(&self, host: &Host, arguments: &[&str]) -> Result<String> {
        match self.node(host, arguments).await? {
            Ok(said) => bail!("berth node {arguments:?} succeeds: {said}"),
            Err(said) => Ok(said),
        }
    }
}
