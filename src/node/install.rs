//! Berth on a host: programs, configuration, unit, and the daemon started, or started anew when something of it has changed. A
//! second installation of the same changes nothing. What does not live here: the kubelet (switch).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::receipt::{Receipt, Switch};
use super::{Credentials, Host, NodeError, Programs, Settings, place, program, runtime, switch};
use crate::config::Config;
use crate::drivers::systemd::{Systemd, SystemdError};
use crate::layout::host::{HostLayout, UNIT};
use crate::layout::{CONFIG, ROOT};

/// The unit file of packages, too.
const UNIT_TEXT: &str = include_str!("../../dist/berth.service");

/// A daemon that ends so often while it is started is not waited for any longer.
const ENDS: u32 = 3;
/// Between two looks; systemd starts a daemon that has ended after a second.
const LOOK: Duration = Duration::from_millis(250);

/// What an installation has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was all there.
    Unchanged,
    /// Something was written; the daemon runs.
    Installed,
    /// The same, and the kubelet is on its way to another runtime.
    Switching,
}

/// Makes the host so. `credentials` are those by which the node's condition can be read.
pub async fn install(
    host: &Host,
    programs: &Programs,
    settings: &Settings,
    credentials: Option<&Credentials>,
) -> Result<Outcome, NodeError> {
    let config = Config::parse(&settings.config, Path::new(CONFIG))?;
    settings.check_trust(&config, &host.layout)?;
    if let Some(unit) = host.layout.packaged_units().into_iter().find(|unit| host.layout.at(unit).exists()) {
        return Err(NodeError::Packaged(unit));
    }
    let _lock = host.lock().await?;
    let mut receipt = Receipt::read(&host.layout)?.unwrap_or_else(|| fresh(host, programs, settings));
    let change = place_all(&host.layout, &mut receipt, programs, settings)?;
    let changed = change.anything || !receipt.complete;
    if changed {
        start(host, &mut receipt, &change).await?;
    } else if let Some(systemd) = &host.systemd {
        // Somebody may have stopped it; one that runs is left alone.
        answer(host, systemd, systemd.start(UNIT)).await?;
    }
    let done = Receipt {
        settings: settings.digest(programs),
        mode: settings.mode,
        complete: true,
        installer: settings.installer.clone(),
        ..receipt.clone()
    };
    if done != receipt {
        receipt = done;
        receipt.write(&host.layout)?;
    }
    program::prune(&host.layout, &receipt)?;
    if switch::begin(host, &mut receipt, settings, credentials).await? {
        return Ok(Outcome::Switching);
    }
    Ok(if changed { Outcome::Installed } else { Outcome::Unchanged })
}

fn fresh(host: &Host, programs: &Programs, settings: &Settings) -> Receipt {
    Receipt {
        version: programs.version().into(),
        previous: None,
        mode: settings.mode,
        settings: String::new(),
        placed: Vec::new(),
        complete: false,
        installer: None,
        data: !host.layout.at(ROOT).exists(),
        kubelet: Switch::Untouched,
    }
}

/// What this installation has changed, so that it can be taken back.
#[derive(Default)]
struct Change {
    anything: bool,
    /// The daemon has to be started anew.
    daemon: bool,
    /// The version in force before.
    version: Option<String>,
    /// Files, and what they said before.
    files: Vec<(PathBuf, String)>,
}

fn place_all(
    host: &HostLayout,
    receipt: &mut Receipt,
    programs: &Programs,
    settings: &Settings,
) -> Result<Change, NodeError> {
    let mut change = Change::default();
    programs.place(host)?;
    let unit = UNIT_TEXT.replace("=/usr/bin/berth ", &format!("={} ", host.program().display()));
    let registries =
        settings.registries.iter().map(|(name, text)| (host.registry_hosts(name), text.as_str()));
    let mut files = vec![(PathBuf::from(CONFIG), settings.config.as_str()), (host.unit(), unit.as_str())];
    files.extend(settings.trust.iter().map(|(name, text)| (host.trust().join(name), text.as_str())));
    let daemons = files.len();
    files.extend(registries);
    for (number, (path, text)) in files.iter().enumerate() {
        let before = fs::read_to_string(host.at(path));
        if place::place(host, receipt, path, text)? {
            change.anything = true;
            // hosts.toml is read at each pull.
            change.daemon |= number < daemons;
            change.files.extend(before.ok().map(|before| (path.clone(), before)));
        }
    }
    let wanted = |path: &Path| files.iter().any(|(file, _)| file.starts_with(path));
    let (registries, trust) = (host.registries(), host.trust());
    let ours = |path: &Path| path.starts_with(&registries) || path.starts_with(&trust);
    place::restore_all(host, receipt, |path| ours(path) && !wanted(path))?;
    let old = fs::read_link(host.at(host.bin())).ok();
    if program::point(host, programs.version())? {
        (change.anything, change.daemon) = (true, true);
        let old = old.and_then(|old| Some(old.file_name()?.to_string_lossy().into_owned()));
        (receipt.previous, receipt.version) = (old.clone(), programs.version().into());
        change.version = old;
        receipt.write(host)?;
    }
    Ok(change)
}

/// The daemon with what is new; where it does not answer then, all as it was before, and the error.
async fn start(host: &Host, receipt: &mut Receipt, change: &Change) -> Result<(), NodeError> {
    let Some(systemd) = &host.systemd else { return Ok(()) };
    if !change.daemon && receipt.complete {
        return Ok(());
    }
    let again = async || -> Result<(), NodeError> {
        systemd.reload().await?;
        systemd.enable(UNIT).await?;
        let version = answer(host, systemd, systemd.restart(UNIT)).await?;
        tracing::info!(version, socket = %host.socket.display(), "the daemon answers");
        Ok(())
    };
    let Err(error) = again().await else { return Ok(()) };
    if !receipt.complete {
        return Err(error);
    }
    tracing::error!(error = crate::error::chain(&error), "back to what was installed before");
    for (path, text) in &change.files {
        place::write(&host.layout.at(path), text.as_bytes(), 0o644)?;
    }
    if let Some(version) = &change.version {
        program::point(&host.layout, version)?;
        receipt.version.clone_from(version);
        receipt.write(&host.layout)?;
    }
    again().await?;
    Err(error)
}

/// Has the daemon started and waits for its answer: its name and version.
async fn answer(
    host: &Host,
    systemd: &Systemd,
    started: impl Future<Output = Result<(), SystemdError>>,
) -> Result<String, NodeError> {
    let answered = async {
        match started.await {
            // The job ends with the first attempt; systemd makes more.
            Err(SystemdError::Job { result, .. }) if result == "failed" => {}
            begun => begun?,
        }
        runtime::wait(&host.socket, host.patience).await
    };
    tokio::select! {
        answered = answered => answered,
        error = ends(systemd) => Err(error),
    }
}

/// Completes when systemd has started the daemon anew again and again, which it does for ever; the error says why.
async fn ends(systemd: &Systemd) -> NodeError {
    let (mut before, mut why) = (u32::MAX, "it did not say why".to_owned());
    loop {
        let seen = tokio::join!(systemd.restarts(UNIT), systemd.status_text(UNIT));
        // A systemd that does not tell is no reason to give up.
        let (Ok(restarts), Ok(said)) = seen else { return std::future::pending().await };
        // Counted anew since somebody had it started.
        before = before.min(restarts);
        if restarts > before && !said.is_empty() {
            why = said;
        }
        let times = restarts - before;
        if times >= ENDS {
            return NodeError::Ends { times, why };
        }
        tokio::time::sleep(LOOK).await;
    }
}
