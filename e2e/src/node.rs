//! One runtime under test: a daemon on scratch directories, started, killed and started again. Berth unless
//! `BERTH_E2E_RUNTIME=containerd`, which tells whether a test expects what others do, too.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cgroup::{Driver, Parent};
use crate::client::Client;
use crate::network::Network;
use crate::runtime::Runtime;

/// How a node differs from a fresh one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// CNI plugins do the network instead of Berth itself (containerd always has them).
    pub cni: bool,
    /// `HOST:PORT` of the registry that stands in for the public ones.
    pub mirror: Option<String>,
    /// Lines for Berth's configuration file.
    pub config: String,
    /// Lines for its `[registry]` section.
    pub registry: String,
    /// Further variables of the daemon's environment.
    pub environment: Vec<(&'static str, String)>,
    /// What Berth logs; empty: what it logs by default.
    pub log: String,
    /// Its root directory, made by somebody else and left as it is; else one that goes with the node.
    pub root: Option<PathBuf>,
}

/// A running daemon. Dropping it removes its pods, ends it and deletes what it stored.
pub struct Node {
    runtime: Runtime,
    daemon: Option<Child>,
    network: Network,
    cgroup_parent: Parent,
    scratch: TempDir,
    log: String,
    root: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
}

impl Node {
    /// Starts the runtime that the environment names.
    pub async fn start(options: &Options) -> Result<Self> {
        Self::start_as(Runtime::from_env()?, options).await
    }

    /// Starts a runtime and waits until it is ready for pods.
    pub async fn start_as(runtime: Runtime, options: &Options) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("berth-e2e-").tempdir()?;
        let network = Network::claim()?;
        let name = format!("{}x{}", network.bridge(), std::process::id());
        let cgroup_parent = Parent::new(Driver::from_env()?, &name);
        let Options { log, root, environment, .. } = options.clone();
        let mut node =
            Self { runtime, daemon: None, network, cgroup_parent, scratch, log, root, environment };
        if let Some(mirror) = &options.mirror {
            write_mirrors(&node.certs_dir(), mirror)?;
        }
        if options.cni || runtime == Runtime::Containerd {
            node.network.write_conflist(&node.conf_dir(), &node.path("ipam"))?;
        }
        std::fs::write(node.config_file(), runtime.configuration(&node, options)?)?;
        node.launch().await?;
        Ok(node)
    }

    /// What it logs; empty: what it logs by default.
    pub(crate) fn log_filter(&self) -> &str {
        &self.log
    }

    /// Further variables of its environment.
    pub(crate) fn environment(&self) -> &[(&'static str, String)] {
        &self.environment
    }

    /// Which program it is.
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// What starts the daemon.
    pub fn command(&self) -> Result<Command> {
        self.runtime.command(self)
    }

    /// Starts the daemon, again after [`Self::kill`] or [`Self::stop`], and waits until it answers.
    pub async fn launch(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let daemon = self
            .command()?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {:?}", self.runtime))?;
        self.daemon = Some(daemon);
        self.wait_until_it_answers().await
    }

    /// Waits for the daemon, whoever started it.
    pub async fn wait_until_it_answers(&mut self) -> Result<()> {
        let end = Instant::now() + crate::bound(Duration::from_secs(30));
        loop {
            let version = async {
                let client = Client::connect(&self.socket()).await?;
                client.runtime.clone().version(berth_proto::cri::v1::VersionRequest::default()).await?;
                anyhow::Ok(())
            };
            let Err(error) = version.await else { return Ok(()) };
            if let Some(status) = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten()) {
                bail!("the daemon ended with {status}:\n{}", self.log_tail());
            }
            if Instant::now() > end {
                bail!("the daemon does not answer ({error}):\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A new connection.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(&self.socket()).await
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// SIGTERM, as an upgrade.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        kill(Pid::from_raw(daemon.id().cast_signed()), signal)?;
        let end = Instant::now() + crate::bound(Duration::from_secs(15));
        while daemon.try_wait()?.is_none() {
            if Instant::now() > end {
                daemon.kill()?;
                daemon.wait()?;
                bail!("the daemon did not end by {signal}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The daemon's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Whether the daemon is gone, for whatever reason.
    pub fn has_ended(&mut self) -> bool {
        self.daemon.as_mut().is_none_or(|daemon| !matches!(daemon.try_wait(), Ok(None)))
    }

    /// All that the daemon printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Above everything that the node stores.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// `--root`
    pub fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| self.path("root"))
    }

    /// `--state`
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// `--socket`
    pub fn socket(&self) -> PathBuf {
        self.path("cri.sock")
    }

    /// `--config`
    pub fn config_file(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// What the daemon printed.
    pub fn log_file(&self) -> PathBuf {
        self.path("daemon.log")
    }

    /// `HOST/hosts.toml` files.
    pub fn certs_dir(&self) -> PathBuf {
        self.path("certs.d")
    }

    /// CNI configurations.
    pub fn conf_dir(&self) -> PathBuf {
        self.path("cni")
    }

    /// Plugins that a test brings; found before all others.
    pub fn plugin_dir(&self) -> PathBuf {
        self.path("plugins")
    }

    /// Its addresses.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The cgroup below which its pods belong.
    pub fn cgroup_parent(&self) -> &Parent {
        &self.cgroup_parent
    }

    /// Where `BERTH_E2E_LOGS` names a directory, a log outlives its node there, under the name of the test.
    fn keep_log(&self) -> Option<()> {
        let directory = PathBuf::from(std::env::var_os("BERTH_E2E_LOGS")?);
        let thread = std::thread::current();
        let path = directory.join(thread.name().unwrap_or("main").replace("::", "."));
        let mut file = File::options().create(true).append(true).open(path).ok()?;
        file.write_all(self.log().as_bytes()).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            let socket = self.socket();
            // The test may have panicked inside a runtime: the clean-up needs one of its own.
            let _ = std::thread::spawn(move || remove_all_pods(&socket)).join();
        }
        // Not SIGTERM: clients of the test are still connected and cannot let go while this thread waits.
        let _ = self.end(Signal::SIGKILL);
        let _ = self.keep_log();
        self.cgroup_parent.remove_empty();
        crate::census::unmount_below(self.scratch.path());
    }
}

fn remove_all_pods(socket: &Path) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let clean = async {
        let client = Client::connect(socket).await.ok()?;
        tokio::time::timeout(crate::bound(Duration::from_secs(60)), client.end_all_pods()).await.ok()?.ok()
    };
    runtime.block_on(clean);
}

/// The registry at `mirror` serves what the images' names say is elsewhere.
fn write_mirrors(certs: &Path, mirror: &str) -> Result<()> {
    for host in ["registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io"] {
        let directory = certs.join(host);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("hosts.toml"), format!("server = \"http://{mirror}\"\n"))?;
    }
    Ok(())
}
