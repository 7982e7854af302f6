//! Which devices of the host a container gets: those asked for, or with `privileged` all.

use std::path::PathBuf;

pub use crate::drivers::host::HostDevice;

use super::spec::{ContainerSpec, Device};
use super::Cause;
use crate::drivers::host;

/// All devices of a container, each under its path inside.
pub(super) fn resolve(spec: &ContainerSpec) -> Result<Vec<HostDevice>, Cause> {
    let mut devices = Vec::new();
    if spec.security.privileged {
        devices = host::all_devices().map_err(|source| Cause::Io { step: "list /dev", source })?;
    }
    for device in &spec.devices {
        let found = host::devices_at(device).map_err(|problem| Cause::Device {
            path: PathBuf::from(&device.host_path),
            problem: problem.to_string(),
        })?;
        devices.retain(|other| !found.iter().any(|new| new.path == other.path));
        devices.extend(found);
    }
    Ok(devices)
}

/// The letters r, w, m in some order, each at most once.
pub fn permissions_are_valid(device: &Device) -> bool {
    let letters = device.permissions.as_bytes();
    letters.len() <= 3
        && letters.iter().all(|letter| b"rwm".contains(letter))
        && (0..letters.len()).all(|at| !letters[..at].contains(&letters[at]))
}
