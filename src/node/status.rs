//! How Berth is on a host, in a line each; a readiness probe's answer. What does not live here: changing it.

use super::receipt::{Receipt, Switch};
use super::{Host, Mode, NodeError, runtime};

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Anything is installed.
    pub installed: bool,
    /// All is as the settings say.
    pub good: bool,
    /// For people.
    pub lines: Vec<String>,
}

/// Looks at it. Not good for an installer that has not come to its end: what is there, and answers, is what was there before.
pub async fn status(host: &Host, installer: Option<&str>) -> Result<Status, NodeError> {
    let Some(receipt) = Receipt::read(&host.layout)? else {
        return Ok(Status { lines: vec!["berth is not installed here".into()], ..Status::default() });
    };
    let mut lines = vec![format!("installed: {}, in {}", receipt.version, host.layout.directory().display())];
    let mut good = receipt.complete;
    if let Some(installer) = installer.filter(|installer| receipt.installer.as_deref() != Some(installer)) {
        good = false;
        lines.push(format!("{installer} has not installed yet"));
    }
    if !receipt.complete {
        lines.push("the installation did not come to its end".into());
    }
    if host.systemd.is_some() {
        match runtime::wait(&host.socket, host.patience).await {
            Ok(version) => lines.push(format!("daemon: {version}, at {}", host.socket.display())),
            Err(error) => {
                good = false;
                lines.push(format!("daemon: {}", crate::error::chain(&error)));
            }
        }
    }
    let (kubelet, there) = match (&receipt.kubelet, receipt.mode) {
        (Switch::Untouched, Mode::Sidecar) => ("its own runtime".into(), true),
        (Switch::Untouched, Mode::Kubelet) => ("not switched yet".into(), false),
        (Switch::Begun { .. }, _) => ("being switched".into(), false),
        (Switch::Done { how, .. }, mode) => (format!("{} uses berth", how.unit), mode == Mode::Kubelet),
        (Switch::Failed { reason, .. }, mode) => {
            (format!("switched back to its old runtime: {reason}"), mode == Mode::Sidecar)
        }
    };
    lines.push(format!("kubelet: {kubelet}"));
    Ok(Status { installed: true, good: good && there, lines })
}
