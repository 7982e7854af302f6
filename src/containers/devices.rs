//! Which devices of the host a container gets: those asked for, or with `privileged` all.

use std::path::Path;

use super::spec::{ContainerSpec, Device};
use super::{Cause, oci};
use crate::drivers::cgroup::{self, DeviceRules};
use crate::drivers::host::{self, HostDevice};

/// All devices of a container, each under its path inside. One that is asked for wins over the node's own there.
pub(super) fn resolve(spec: &ContainerSpec) -> Result<Vec<HostDevice>, Cause> {
    let mut devices = if spec.security.privileged { host::all_devices()? } else { Vec::new() };
    for Device { host_path, container_path, permissions } in &spec.devices {
        let found = host::devices(Path::new(host_path), Path::new(container_path), permissions)?;
        devices.retain(|other| !found.iter().any(|new| new.path == other.path));
        devices.extend(found);
    }
    Ok(devices)
}

/// What the container's cgroup allows: with `privileged` all, else the default list and the devices asked for.
pub(super) fn rules(spec: &ContainerSpec, devices: &[HostDevice]) -> DeviceRules {
    if spec.security.privileged {
        return DeviceRules::All;
    }
    let rule = |rule: &oci::DeviceRule| {
        let kind = if rule.kind == 'b' { cgroup::DeviceKind::Block } else { cgroup::DeviceKind::Char };
        cgroup::DeviceRule::new(kind, rule.major, rule.minor, &rule.access)
    };
    DeviceRules::Only(oci::device_rules(false, devices).iter().map(rule).collect())
}

/// The letters r, w, m in some order, each at most once.
pub fn permissions_are_valid(device: &Device) -> bool {
    let letters = device.permissions.as_bytes();
    letters.len() <= 3
        && letters.iter().all(|letter| b"rwm".contains(letter))
        && (0..letters.len()).all(|at| !letters[..at].contains(&letters[at]))
}
