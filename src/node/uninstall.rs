//! The host as it was: the kubelet on its old runtime, the daemon stopped, what was replaced put back. Pods that Berth runs
//! beside another runtime are left alone, and so is the data they need. What does not live here: single steps.

use std::fs;
use std::time::Duration;

use super::receipt::{Receipt, Switch};
use super::runtime::Runtime;
use super::{Credentials, Host, NodeError, file, place, program, switch};
use crate::layout::host::UNIT;

/// The transient unit of one that a pod has asked for.
const TRANSIENT: &str = "berth-uninstall.service";
/// Between two looks at how far it is.
const PAUSE: Duration = Duration::from_secs(3);

/// For a pod that may end with Berth's: has the host do it, and waits for its end.
pub async fn begin_uninstall(host: &Host, credentials: Option<&Credentials>) -> Result<(), NodeError> {
    let Some(systemd) = &host.systemd else { return uninstall(host).await.map(drop) };
    tracing::info!("uninstalling; `journalctl -u berth-uninstall` on the node tells how far it is");
    while Receipt::read(&host.layout)?.is_some() {
        if let Some(credentials) = credentials {
            credentials.keep(&host.layout.credentials())?;
        }
        // One that runs is fine; one that has failed is tried again.
        switch::run(host, systemd, "uninstall", TRANSIENT).await?;
        tokio::time::sleep(PAUSE).await;
    }
    switch::forget_credentials(&host.layout)
}

/// Whether there was anything to undo.
pub async fn uninstall(host: &Host) -> Result<bool, NodeError> {
    if Receipt::read(&host.layout)?.is_none() {
        return Ok(false);
    }
    let _lock = host.lock().await?;
    let Some(mut receipt) = Receipt::read(&host.layout)? else { return Ok(false) };
    if let Switch::Done { how, .. } | Switch::Begun { how, .. } = receipt.kubelet.clone() {
        switch::restore(host, &mut receipt, &how).await?;
    }
    let pods = match Runtime::connect(&host.socket).await {
        Ok(mut runtime) => runtime.pods().await?.len(),
        // Nobody knows: then there may be some.
        Err(_) => usize::from(host.layout.data().iter().any(|dir| dir.exists())),
    };
    if let Some(systemd) = &host.systemd {
        systemd.stop(UNIT).await?;
        systemd.disable(UNIT).await?;
    }
    place::restore_all(&host.layout, &mut receipt, |_| true)?;
    if let Some(systemd) = &host.systemd {
        systemd.reload().await?;
    }
    remove_data(host, &receipt, pods);
    switch::forget_credentials(&host.layout)?;
    program::remove(&host.layout)?;
    for path in [host.layout.receipt(), host.layout.lock()] {
        fs::remove_file(&path).map_err(file("remove", &path))?;
    }
    // Something of somebody else's may be in it.
    let _ = fs::remove_dir(host.layout.at(host.layout.directory()));
    Ok(true)
}

fn remove_data(host: &Host, receipt: &Receipt, pods: usize) {
    let here = host.layout.data().into_iter().filter(|dir| dir.exists());
    for dir in here {
        if pods > 0 || !receipt.data {
            let why = if pods > 0 { "pods may still run" } else { "it was there before" };
            tracing::warn!(path = %dir.display(), "left where it is: {why}");
        } else if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(path = %dir.display(), %error, "cannot remove it");
        }
    }
}
