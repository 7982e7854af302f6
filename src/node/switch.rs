//! The kubelet from its runtime to Berth, and back. Runs outside of every pod: the pod that asks for it ends with the old
//! runtime's pods. What does not live here: the text of the drop-in (kubelet), and what Ready is (ready).
//!
//! Pods can't move from one runtime to another: those of the old one are stopped while no kubelet runs, and the kubelet
//! makes them anew. If the node is not Ready in time, the same way back.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::ready::{self, Runtime as Wanted};
use super::receipt::{Receipt, Switch};
use super::runtime::Runtime;
use super::{Credentials, Host, Kubelet, Mode, NodeError, Settings, file, kubelet, place};
use crate::drivers::systemd::Systemd;
use crate::layout::host::HostLayout;

/// The transient unit.
const UNIT: &str = "berth-switch.service";
/// Between two looks at how far it is.
const PAUSE: Duration = Duration::from_secs(1);

/// How a switch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Nothing,
    /// The kubelet uses Berth.
    Switched,
    /// The kubelet uses its old runtime again.
    Back,
}

/// Starts what is due; whether something was.
pub(super) async fn begin(
    host: &Host,
    receipt: &mut Receipt,
    settings: &Settings,
    credentials: Option<&Credentials>,
) -> Result<bool, NodeError> {
    match (&receipt.kubelet, settings.mode) {
        (Switch::Done { how, .. }, Mode::Kubelet) => {
            // The distribution may have changed its unit since: the kubelet's next start shall heed that.
            let how = how.clone();
            point(host, receipt, &how).await?;
            return Ok(false);
        }
        (Switch::Failed { settings: tried, reason }, Mode::Kubelet) if *tried == receipt.settings => {
            return Err(NodeError::RolledBack(reason.clone()));
        }
        (Switch::Untouched | Switch::Failed { .. }, Mode::Sidecar) => return Ok(false),
        _ => {}
    }
    let systemd = host.systemd.as_ref().ok_or(NodeError::NoSystemd)?;
    if let (Mode::Kubelet, Switch::Untouched | Switch::Failed { .. }) = (settings.mode, &receipt.kubelet) {
        let mut how = settings.kubelet.clone();
        // Nobody can be asked without.
        how.node = how.node.filter(|_| credentials.is_some());
        // Whatever would fail later, fails here, where nothing has happened yet.
        command(host, systemd, &how.unit).await?;
        let heartbeat = ready::heartbeat(&how, credentials.cloned()).await?;
        let old = old_runtime(host, systemd, &how.unit).await?;
        receipt.kubelet = Switch::Begun { how, old, heartbeat };
        receipt.write(&host.layout)?;
    }
    if let Some(credentials) = credentials {
        credentials.keep(&host.layout.credentials())?;
    }
    run(host, systemd, "switch", UNIT).await?;
    Ok(true)
}

/// Has `berth node VERB` of the host's own program run as a service.
pub(super) async fn run(host: &Host, systemd: &Systemd, verb: &str, unit: &str) -> Result<(), NodeError> {
    let word = |path: PathBuf| path.to_string_lossy().into_owned();
    let (program, directory) = (word(host.layout.program()), word(host.layout.directory().into()));
    let words = [&program, "node", verb, "--directory", &directory].map(String::from);
    Ok(systemd.run_transient(unit, &words).await?)
}

/// For who has begun a switch: waits for its end.
pub async fn wait_for_switch(host: &Host) -> Result<Step, NodeError> {
    loop {
        match Receipt::read(&host.layout)?.map(|receipt| (receipt.kubelet, receipt.mode)) {
            Some((Switch::Begun { .. }, _) | (Switch::Done { .. }, Mode::Sidecar)) => {}
            Some((Switch::Done { .. }, _)) => return Ok(Step::Switched),
            Some((Switch::Failed { reason, .. }, Mode::Kubelet)) => {
                return Err(NodeError::RolledBack(reason));
            }
            Some((Switch::Untouched | Switch::Failed { .. }, _)) => return Ok(Step::Back),
            None => return Ok(Step::Nothing),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Does what is due, to its end.
pub async fn switch(host: &Host) -> Result<Step, NodeError> {
    let _lock = host.lock().await?;
    let Some(mut receipt) = Receipt::read(&host.layout)? else { return Ok(Step::Nothing) };
    let step = match (receipt.kubelet.clone(), receipt.mode) {
        (Switch::Begun { how, old, heartbeat }, Mode::Kubelet) => {
            let failed = match forward(host, &mut receipt, &how, old.clone()).await {
                Ok(()) => ready::wait(host, &how, Wanted::Berth, heartbeat.as_deref()).await,
                Err(error) => Some(crate::error::chain(&error)),
            };
            match failed {
                None => finish(host, &mut receipt, how, old).await?,
                Some(reason) => {
                    tracing::error!(reason, "back to the old runtime");
                    back(host, &mut receipt, &how).await?;
                    let settings = receipt.settings.clone();
                    receipt.kubelet = Switch::Failed { settings, reason };
                    Step::Back
                }
            }
        }
        (Switch::Done { how, .. } | Switch::Begun { how, .. }, Mode::Sidecar) => {
            restore(host, &mut receipt, &how).await?;
            Step::Back
        }
        (Switch::Done { how, old }, Mode::Kubelet) => finish(host, &mut receipt, how, old).await?,
        (Switch::Untouched | Switch::Failed { .. }, _) => Step::Nothing,
    };
    receipt.write(&host.layout)?;
    forget_credentials(&host.layout)?;
    Ok(step)
}

/// The old runtime's pods go; it runs on, without any.
async fn finish(
    host: &Host,
    receipt: &mut Receipt,
    how: Kubelet,
    old: Option<PathBuf>,
) -> Result<Step, NodeError> {
    receipt.kubelet = Switch::Done { how, old: old.clone() };
    receipt.write(&host.layout)?;
    if let Some(Ok(mut runtime)) = connect(old).await {
        runtime.remove_pods().await?;
    }
    Ok(Step::Switched)
}

async fn connect(socket: Option<PathBuf>) -> Option<Result<Runtime, NodeError>> {
    Some(Runtime::connect(&socket?).await)
}

/// The kubelet started on Berth; a second time too.
async fn forward(
    host: &Host,
    receipt: &mut Receipt,
    how: &Kubelet,
    old: Option<PathBuf>,
) -> Result<(), NodeError> {
    let systemd = host.systemd.as_ref().ok_or(NodeError::NoSystemd)?;
    super::runtime::wait(&host.socket, host.patience).await?;
    let path = host.layout.kubelet_drop_in(&how.unit);
    if !host.layout.at(path).exists() {
        systemd.stop(&how.unit).await?;
        if let Some(Ok(mut runtime)) = connect(old).await {
            tracing::info!(pods = runtime.stop_pods().await?, "stopped the old runtime's pods");
        }
    }
    point(host, receipt, how).await?;
    Ok(systemd.start(&how.unit).await?)
}

/// Writes the drop-in.
async fn point(host: &Host, receipt: &mut Receipt, how: &Kubelet) -> Result<(), NodeError> {
    let systemd = host.systemd.as_ref().ok_or(NodeError::NoSystemd)?;
    let text = kubelet::drop_in(&command(host, systemd, &how.unit).await?, &host.socket);
    if place::place(&host.layout, receipt, &host.layout.kubelet_drop_in(&how.unit), &text)? {
        systemd.reload().await?;
    }
    Ok(())
}

/// The kubelet started on its old runtime.
async fn back(host: &Host, receipt: &mut Receipt, how: &Kubelet) -> Result<(), NodeError> {
    let systemd = host.systemd.as_ref().ok_or(NodeError::NoSystemd)?;
    systemd.stop(&how.unit).await?;
    if let Some(Ok(mut runtime)) = connect(Some(host.socket.clone())).await {
        runtime.settle().await;
        runtime.stop_pods().await?;
        runtime.remove_pods().await?;
    }
    let drop_in = host.layout.kubelet_drop_in(&how.unit);
    place::restore_all(&host.layout, receipt, |path| {
        path == drop_in || drop_in.parent().is_some_and(|dir| path == dir)
    })?;
    systemd.reload().await?;
    Ok(systemd.start(&how.unit).await?)
}

/// The same for a switch that had succeeded, and waits until the node is Ready.
pub(super) async fn restore(host: &Host, receipt: &mut Receipt, how: &Kubelet) -> Result<(), NodeError> {
    let systemd = host.systemd.as_ref().ok_or(NodeError::NoSystemd)?;
    // First, so that whatever is heard later is of the next one.
    systemd.stop(&how.unit).await?;
    let kept = Credentials::kept(&host.layout.credentials());
    let stale = ready::heartbeat(how, kept).await.unwrap_or_default();
    back(host, receipt, how).await?;
    receipt.kubelet = Switch::Untouched;
    receipt.write(&host.layout)?;
    if let Some(reason) = ready::wait(host, how, Wanted::Any, stale.as_deref()).await {
        tracing::warn!(reason, "the kubelet is back on its old runtime");
    }
    Ok(())
}

pub(super) fn forget_credentials(host: &HostLayout) -> Result<(), NodeError> {
    let path = host.credentials();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("remove", &path)(error)),
        _ => {
            // Only ours is in it.
            let _ = path.parent().map(fs::remove_dir);
            Ok(())
        }
    }
}

/// How the unit's own files start the kubelet.
async fn command(host: &Host, systemd: &Systemd, unit: &str) -> Result<String, NodeError> {
    let files = systemd.files(unit).await?;
    let none = || NodeError::Kubelet { unit: unit.into(), why: "systemd knows no such unit".into() };
    let ours = host.layout.kubelet_drop_in(unit);
    let mut texts = Vec::new();
    for path in std::iter::once(files.fragment.ok_or_else(none)?).chain(files.drop_ins) {
        if path != ours {
            let here = host.layout.at(&path);
            texts.push(fs::read_to_string(&here).map_err(file("read", &here))?);
        }
    }
    kubelet::exec_start(unit, &texts)
}

/// The socket that the running kubelet talks to; None: none runs.
async fn old_runtime(host: &Host, systemd: &Systemd, unit: &str) -> Result<Option<PathBuf>, NodeError> {
    let Some(pid) = systemd.main_pid(unit).await? else { return Ok(None) };
    let path = host.layout.command_line(pid);
    let line = fs::read(&path).map_err(file("read", &path))?;
    let words: Vec<_> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    Ok(Some(kubelet::endpoint(&words, |path| fs::read_to_string(host.layout.at(path)).ok())))
}
