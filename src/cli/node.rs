//! `berth node`: from a pod of the chart, or on the host itself. What does not live here: what each verb does (node).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::print;
use crate::drivers::systemd::Systemd;
use crate::layout::DEFAULT_SOCKET;
use crate::layout::host::{self, HostLayout};
use crate::node::{self, Credentials, Host, Kubelet, Mode, Outcome, Programs, Settings, Step};

/// How long a daemon may take to answer: it takes over the pods of the one before.
const PATIENCE: Duration = Duration::from_secs(300);
/// The same where somebody waits for a look.
const GLANCE: Duration = Duration::from_secs(3);

/// The variable by which the chart's pods have a name each.
const INSTALLER: &str = "POD_UID";

/// `berth node`
#[derive(Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Args)]
struct Place {
    /// Where the host's root directory is
    #[arg(long, value_name = "DIR", global = true, default_value = "/")]
    root: PathBuf,
    /// Where programs and the record of what was replaced are, as the host sees it
    #[arg(long, value_name = "DIR", global = true, default_value = host::DIRECTORY)]
    directory: PathBuf,
    /// Who runs the host's services
    #[arg(long, global = true, default_value = "systemd")]
    service: Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// systemd, over its D-Bus
    Systemd,
    /// Somebody else: files are written, and nothing is started
    None,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Install or upgrade, start the daemon, and switch the kubelet where that is asked for
    Install(Box<Install>),
    /// Put the host back as it was
    Uninstall,
    /// Tell what is installed; fails if something is not as it should be
    Status {
        /// Expect that nothing is installed
        #[arg(long, env = node::UNINSTALL)]
        uninstall: bool,
        /// Expect that this one was the last to install
        #[arg(long, value_name = "NAME", env = INSTALLER)]
        installer: Option<String>,
    },
    /// Switch the kubelet as an installation has asked for (the installation starts this by itself, outside of its pod)
    Switch,
    /// Uninstall on all nodes of a release, one after another (the chart's hook before it is deleted)
    UninstallAll {
        /// The DaemonSet's namespace
        #[arg(long, value_name = "NAME")]
        namespace: String,
        /// The DaemonSet
        #[arg(long, value_name = "NAME")]
        daemonset: String,
    },
}

#[derive(Args)]
struct Install {
    /// What Berth is for
    #[arg(long, default_value = "kubelet")]
    mode: Mode,
    /// The daemon's configuration [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of HOST/hosts.toml files
    #[arg(long, value_name = "DIR")]
    registries: Option<PathBuf>,
    /// Directory of keys and trusted roots, for /etc/berth/trust
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// The kubelet's unit
    #[arg(long, value_name = "UNIT", default_value = "kubelet.service")]
    kubelet_unit: String,
    /// Where the kubelet says that it is healthy
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10248")]
    healthz: String,
    /// How long the node may take to be Ready, before the kubelet gets its old runtime back
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    ready_within: Duration,
    /// A switch that has failed is tried again when this text changes
    #[arg(long, value_name = "TEXT", default_value = "")]
    attempt: String,
    /// The node's name in the cluster
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: Option<String>,
    /// Who installs, for `berth node status --installer`
    #[arg(long, value_name = "NAME", env = INSTALLER)]
    installer: Option<String>,
    /// Stay until SIGTERM
    #[arg(long)]
    stay: bool,
    /// Uninstall instead
    #[arg(long, env = node::UNINSTALL)]
    uninstall: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration::parse(text).ok_or_else(|| format!("{text:?} is no duration such as 30s or 5m"))
}

impl NodeArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info"))
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.act())
    }

    async fn act(self) -> anyhow::Result<ExitCode> {
        let Self { place, command } = self;
        match command {
            NodeCommand::Install(install) => install.run(&place).await?,
            NodeCommand::Uninstall => {
                let host = place.enter(PATIENCE).await?;
                let done = node::uninstall(&host).await?;
                print(if done { "the host is as it was\n" } else { "berth is not installed here\n" })?;
            }
            NodeCommand::Status { uninstall, installer } => {
                let status = node::status(&place.enter(GLANCE).await?, installer.as_deref()).await?;
                print(&status.lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
                let good = if uninstall { !status.installed } else { status.good };
                return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            NodeCommand::Switch => match node::switch(&place.enter(PATIENCE).await?).await? {
                Step::Nothing => print("there is nothing to switch\n")?,
                Step::Switched => print("the kubelet uses berth\n")?,
                Step::Back => print("the kubelet uses its old runtime\n")?,
            },
            NodeCommand::UninstallAll { namespace, daemonset } => {
                let credentials = Credentials::of_this_pod()?.context("this runs in a pod only")?;
                node::restore_all(credentials, &namespace, &daemonset).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    /// From here on `/` is the host's.
    async fn enter(&self, patience: Duration) -> anyhow::Result<Host> {
        if self.root != Path::new("/") {
            let refused = || format!("cannot enter the host's root directory {}", self.root.display());
            nix::unistd::chroot(&self.root).with_context(refused)?;
            std::env::set_current_dir("/").with_context(refused)?;
        }
        let layout = HostLayout::new("/", &self.directory);
        let systemd = match self.service {
            Service::None => None,
            Service::Systemd if layout.booted().is_dir() => Some(Systemd::at(&layout.bus()).await?),
            Service::Systemd => bail!(
                "systemd does not run this host: {} is missing; with --service none (the chart's service.manager) only files are written",
                layout.booted().display()
            ),
        };
        Ok(Host { layout, systemd, socket: DEFAULT_SOCKET.into(), patience })
    }
}

impl Install {
    async fn run(self, place: &Place) -> anyhow::Result<()> {
        let (stay, uninstall) = (self.stay, self.uninstall);
        // All that is this pod's and not the host's.
        let credentials = Credentials::of_this_pod()?;
        let programs = own_programs()?;
        let settings = self.settings()?;
        let host = place.enter(PATIENCE).await?;
        // Before the work: who is told to end meanwhile, ends after it.
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        if uninstall {
            node::begin_uninstall(&host, credentials.as_ref()).await?;
            tracing::info!("the host is as it was");
        } else {
            match node::install(&host, &programs, &settings, credentials.as_ref()).await? {
                Outcome::Unchanged => tracing::info!("everything is as it should be"),
                Outcome::Installed => tracing::info!("installed"),
                Outcome::Switching => {
                    tracing::info!(
                        "the kubelet is being switched; `journalctl -u berth-switch` on the node tells more"
                    );
                    node::wait_for_switch(&host).await?;
                }
            }
        }
        drop((programs, settings));
        if stay {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        }
        Ok(())
    }

    fn settings(self) -> anyhow::Result<Settings> {
        let config = match &self.config {
            Some(path) => {
                fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => crate::config::DEFAULT.into(),
        };
        Ok(Settings {
            mode: self.mode,
            config,
            registries: texts(self.registries.as_deref(), |entry| entry.join(host::HOSTS))?,
            trust: texts(self.trust.as_deref(), Path::to_path_buf)?,
            kubelet: Kubelet {
                unit: self.kubelet_unit,
                healthz: self.healthz,
                ready_within: self.ready_within,
                attempt: self.attempt,
                node: self.node,
            },
            installer: self.installer,
        })
    }
}

/// This program, and the shim beside it.
fn own_programs() -> anyhow::Result<Programs> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Ok(Programs::read(&own, &own.with_file_name(host::SHIM))?)
}

/// The files of a directory's entries, by the entries' names. Kubernetes adds entries of its own, which begin with a dot.
fn texts(dir: Option<&Path>, file_of: fn(&Path) -> PathBuf) -> anyhow::Result<BTreeMap<String, String>> {
    let (Some(dir), mut found) = (dir, BTreeMap::new()) else { return Ok(BTreeMap::new()) };
    let unread = |path: &Path| format!("cannot read {}", path.display());
    for entry in fs::read_dir(dir).with_context(|| unread(dir))? {
        let entry = entry.with_context(|| unread(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = file_of(&entry.path());
        if !name.starts_with('.') && file.is_file() {
            found.insert(name, fs::read_to_string(&file).with_context(|| unread(&file))?);
        }
    }
    Ok(found)
}
