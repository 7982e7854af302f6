//! The running daemon: drivers, then the domain, then the API; recovery before the socket; an orderly end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use berth_proto::admin::v1::admin_server::AdminServer;
use berth_proto::cri::v1::image_service_server::ImageServiceServer;
use berth_proto::cri::v1::runtime_service_server::RuntimeServiceServer;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::service::Routes;

use crate::api::admin::AdminApi;
use crate::api::cri::{ImageApi, RuntimeApi, Services};
use crate::api::metrics::{self, Endpoint};
use crate::api::server;
use crate::api::streaming::{self, Streaming};
use crate::config::Config;
use crate::containers::Containers;
use crate::drivers::{
    Drivers,
    apparmor::Apparmor,
    background::Background,
    bundle::Bundles,
    cgroup::Cgroups,
    descriptors,
    host::Host,
    layers::Layers,
    network::Network,
    pod_files::PodFiles,
    quota::Quotas,
    registry::Registry,
    seccomp::SeccompCache,
    shim,
    shim::Shims,
    store::{Durability, Record, Store},
    trash::Trash,
};
use crate::health::Health;
use crate::images::Images;
use crate::layout::Layout;
use crate::pods::Pods;
use crate::telemetry::METRICS;

/// Largest message taken or sent: what the kubelet's own client allows.
const MESSAGE: usize = 16 << 20;
/// How often free memory goes back to the kernel.
const MEMORY: Duration = Duration::from_secs(15);
/// How long the locks of the daemon before this one may outlive it.
const LOCK: Duration = Duration::from_secs(1);
/// How long calls under way may take to finish once the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Where this daemon lives.
pub struct Places {
    /// Its directories.
    pub layout: Layout,
    /// Its socket.
    pub socket: PathBuf,
}

/// Serves until SIGTERM or SIGINT. Pods and containers live on.
pub async fn run(config: Config, places: Places) -> anyhow::Result<()> {
    descriptors::lift();
    make_directories(&places.layout)?;
    let _locks = lock(&places.layout)?;
    let (metrics, page) = Endpoint::open(&config.metrics).await;
    let (services, events, streaming) = build(config, &places.layout, Arc::new(metrics)).await?;
    count_start(&services.drivers.store).await?;
    tokio::spawn(follow_shims(services.clone(), events));
    tokio::spawn(give_back_memory());
    services.pods.recover().await.context("cannot take over the pods of the daemon before this one")?;
    services.images.collect().await.context("cannot clear the layer cache")?;
    tokio::spawn(services.metrics.clone().run(page, metrics::registry(&services)));
    let listener = listen(&places.socket)?;
    tokio::spawn(streaming.run());
    tracing::info!(socket = %places.socket.display(), "serving");
    tell_systemd(&[NotifyState::Ready, NotifyState::Status(&format!("serving {}", places.socket.display()))]);
    let served = serve(services.clone(), listener).await;
    // The bridge goes only if no pod is on it.
    if let Err(error) = services.drivers.network.close().await {
        tracing::warn!(error = crate::error::chain(&error), "cannot take the built-in network apart");
    }
    // The next daemon makes its own; a socket without a daemon only misleads.
    let _ = fs::remove_file(&places.socket);
    served
}

async fn build(
    config: Config,
    layout: &Layout,
    metrics: Arc<Endpoint>,
) -> anyhow::Result<(Services, mpsc::UnboundedReceiver<shim::Event>, streaming::Server)> {
    let (started, whole) = (SystemTime::now(), Arc::new(config.clone()));
    let store = Arc::new(Store::open(&layout.store())?);
    let registry = Registry::new(config.registry)?;
    let trash = Trash::new(layout);
    let layers = Layers::open(layout, &config.layers, trash.clone())?;
    let images = Arc::new(Images::open(layers.clone(), store.clone(), registry, config.image).await?);
    let (shims, events) = Shims::open(&config.shim, layout.clone())?;
    let host = Host::detect();
    let drivers = Arc::new(Drivers {
        network: Arc::new(Network::open(config.cni, config.network, layout, store.clone()).await?),
        cgroups: Cgroups::open(&config.cgroup)?,
        bundles: Bundles::new(layout.clone(), trash, Quotas::open(layout, config.layers.writable_limit_mib)),
        pod_files: PodFiles::new(layout.clone()),
        background: Background::default(),
        seccomp: SeccompCache::new(host.kernel),
        apparmor: Apparmor::open().await,
        host,
        layout: layout.clone(),
        store,
        shims,
        layers,
    });
    let containers = Arc::new(Containers::new(drivers.clone(), images.clone()));
    let pods = Arc::new(Pods::new(config.pods, drivers.clone(), containers.clone()));
    let (streaming, server) = Streaming::bind(config.streaming, containers.clone(), pods.clone()).await?;
    let health = Arc::new(Health::new(drivers.clone(), whole.layers.reserve_mib << 20));
    let services =
        Services { pods, containers, images, streaming, health, started, config: whole, drivers, metrics };
    Ok((services, events, server))
}

/// How many daemons have begun with these records.
#[derive(Default, Serialize, Deserialize)]
struct Starts(u64);

impl Record for Starts {
    const TABLE: &'static str = "starts";
}

/// A counter that goes on where the daemon before this one had it.
async fn count_start(store: &Store) -> anyhow::Result<()> {
    let Starts(before) =
        store.load::<Starts>()?.into_iter().find_map(|(_, starts)| starts.ok()).unwrap_or_default();
    METRICS.restarts.inc_by(before);
    Ok(store.put("daemon", &Starts(before + 1), Durability::Process).await?)
}

/// What a pull or a burst of pods has freed goes back to the node.
async fn give_back_memory() {
    loop {
        tokio::time::sleep(MEMORY).await;
        let _ = tokio::task::spawn_blocking(berth_sys::malloc::trim).await;
    }
}

/// Each event in a task of its own: a slow end of one container holds up no other.
async fn follow_shims(services: Services, mut events: mpsc::UnboundedReceiver<shim::Event>) {
    while let Some(event) = events.recv().await {
        let services = services.clone();
        tokio::spawn(async move {
            match event {
                shim::Event::Exited { exited, .. } => services.containers.on_exit(exited).await,
                shim::Event::Gone { pod } => services.pods.on_shim_gone(&pod).await,
            }
        });
    }
}

async fn serve(services: Services, listener: UnixListener) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let containers = services.containers.clone();
    let runtime = RuntimeServiceServer::new(RuntimeApi::new(services.clone()))
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE);
    let admin = AdminServer::new(AdminApi::new(services.clone()));
    let image = ImageServiceServer::new(ImageApi::new(services))
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE);
    let routes = Routes::new(runtime).add_service(image).add_service(admin);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; pods and containers live on");
        tell_systemd(&[NotifyState::Stopping]);
        // A stream that never ends would hold up the end.
        containers.events().close();
    };
    server::serve(routes, listener, stop, DRAIN).await;
    Ok(())
}

/// Nothing happens where systemd did not start this daemon with `Type=notify`.
pub fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

fn make_directories(layout: &Layout) -> anyhow::Result<()> {
    for dir in layout.directories() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
        // Whatever the umask or an earlier hand has done to it: nobody else may look into it.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot set the mode of {}", dir.display()))?;
    }
    Ok(())
}

/// One daemon for each state directory, and for each root; the locks go with the process. A child of a daemon that was
/// killed, forked and not yet executing, holds them a moment longer.
fn lock(layout: &Layout) -> anyhow::Result<[fs::File; 2]> {
    let end = Instant::now() + LOCK;
    let take = |flag: &str, dir: &Path, path: PathBuf| -> anyhow::Result<fs::File> {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let mut locked = file.try_lock();
        while matches!(locked, Err(fs::TryLockError::WouldBlock)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                bail!(
                    "another berth holds the lock of {flag} {}: stop it, or give this one its own --root, --state and --socket",
                    dir.display()
                )
            }
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    };
    Ok([take("--state", layout.state(), layout.lock())?, take("--root", layout.root(), layout.root_lock())?])
}

/// Binds beside the socket's place and renames over it: a client finds the old one or the new one, never none.
fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    let dir = socket.parent().context("the socket's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let fresh = socket.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let bind = || -> io::Result<UnixListener> {
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
        fs::rename(&fresh, socket)?;
        Ok(listener)
    };
    bind().with_context(|| format!("cannot listen at {}", socket.display()))
}
