//! Puts the two programs on the host, a directory for each version, and a link that says which is in force. What does not
//! live here: starting them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::receipt::Receipt;
use super::{NodeError, file, place};
use crate::drivers::selinux;
use crate::layout::host::{HostLayout, PROGRAM, SHIM};

/// What the policy of container-selinux has runtimes labelled with, so that their containers are confined; and what any
/// policy has.
const LABELS: [&str; 2] = ["system_u:object_r:container_runtime_exec_t:s0", "system_u:object_r:bin_t:s0"];

/// The programs to install.
pub struct Programs {
    daemon: Vec<u8>,
    shim: Vec<u8>,
    version: String,
}

impl Programs {
    /// Takes them from files of this pod.
    pub fn read(daemon: &Path, shim: &Path) -> Result<Self, NodeError> {
        let read = |path: &Path| fs::read(path).map_err(file("read", path));
        Ok(Self::of(read(daemon)?, read(shim)?))
    }

    /// Two builds of one version have two names.
    pub(super) fn of(daemon: Vec<u8>, shim: Vec<u8>) -> Self {
        let digest = super::digest(&[&daemon, &shim]);
        let version = format!("{}-{}", env!("CARGO_PKG_VERSION"), &digest[..12]);
        Self { daemon, shim, version }
    }

    /// Names the version's directory.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Both programs in the version's directory; one that is there is whole.
    pub(super) fn place(&self, host: &HostLayout) -> Result<(), NodeError> {
        let whole = host.at(host.version(&self.version));
        if whole.exists() {
            return Ok(());
        }
        let fresh = host.at(host.version(&format!(".{}", self.version)));
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(file("remove", &fresh))?;
        }
        fs::create_dir_all(&fresh).map_err(file("make", &fresh))?;
        for (name, content) in [(PROGRAM, &self.daemon), (SHIM, &self.shim)] {
            place::write(&fresh.join(name), content, 0o755)?;
        }
        if selinux::is_on() && !LABELS.iter().any(|label| selinux::relabel(&fresh, label).is_ok()) {
            tracing::warn!(path = %fresh.display(), "cannot label the programs for SELinux");
        }
        fs::rename(&fresh, &whole).map_err(file("rename", &fresh))?;
        place::sync_directory(&whole).map_err(file("sync", &whole))
    }
}

/// Puts a version in force; whether another one was.
pub(super) fn point(host: &HostLayout, version: &str) -> Result<bool, NodeError> {
    let (link, target) = (host.at(host.bin()), Path::new("versions").join(version));
    if fs::read_link(&link).is_ok_and(|found| found == target) {
        return Ok(false);
    }
    let fresh = link.with_extension("berth-new");
    let point = || {
        let _ = fs::remove_file(&fresh);
        symlink(&target, &fresh)?;
        fs::rename(&fresh, &link)?;
        place::sync_directory(&link)
    };
    point().map_err(file("link", &link))?;
    Ok(true)
}

/// Removes versions other than the one in force and the one before it.
pub(super) fn prune(host: &HostLayout, receipt: &Receipt) -> Result<(), NodeError> {
    let dir = host.at(host.versions());
    for entry in fs::read_dir(&dir).map_err(file("list", &dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != receipt.version && Some(&name) != receipt.previous.as_ref() {
            fs::remove_dir_all(entry.path()).map_err(file("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Removes all versions and the link.
pub(super) fn remove(host: &HostLayout) -> Result<(), NodeError> {
    let (link, versions) = (host.at(host.bin()), host.at(host.versions()));
    for (path, removed) in [(&link, fs::remove_file(&link)), (&versions, fs::remove_dir_all(&versions))] {
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(file("remove", path)(error)),
            _ => {}
        }
    }
    Ok(())
}
