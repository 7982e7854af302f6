//! Device nodes of a container, and what its device cgroup allows. What does not live here: finding devices.

use std::path::{Component, Path};

use oci_spec::runtime as oci;

use super::SpecError;
use crate::drivers::host::{DeviceKind, HostDevice};

/// One rule of the device cgroup; all that no rule allows is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` for all, `b` for block, `c` for character devices.
    pub kind: char,
    /// None: any.
    pub major: Option<u32>,
    /// None: any.
    pub minor: Option<u32>,
    /// Of the letters r, w, m.
    pub access: String,
}

/// What every container may use: null, zero, full, random, urandom, tty, console, pseudo terminals, ptmx and tun;
/// nodes of anything may be made, but not opened.
const DEFAULT: [(char, Option<u32>, Option<u32>, &str); 12] = [
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"),
    ('c', Some(1), Some(5), "rwm"),
    ('c', Some(1), Some(7), "rwm"),
    ('c', Some(1), Some(8), "rwm"),
    ('c', Some(1), Some(9), "rwm"),
    ('c', Some(5), Some(0), "rwm"),
    ('c', Some(5), Some(1), "rwm"),
    ('c', Some(5), Some(2), "rwm"),
    ('c', Some(136), None, "rwm"),
    ('c', Some(10), Some(200), "rwm"),
];

/// The allow list: the default and the devices asked for; with privileged, everything.
pub fn device_rules(privileged: bool, devices: &[HostDevice]) -> Vec<DeviceRule> {
    if privileged {
        return vec![DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_string() }];
    }
    let default = DEFAULT.into_iter().map(|(kind, major, minor, access)| DeviceRule {
        kind,
        major,
        minor,
        access: access.to_string(),
    });
    let asked = devices.iter().map(|device| DeviceRule {
        kind: letter(device.kind),
        major: Some(device.major),
        minor: Some(device.minor),
        access: device.access.clone(),
    });
    default.chain(asked).collect()
}

fn letter(kind: DeviceKind) -> char {
    match kind {
        DeviceKind::Block => 'b',
        DeviceKind::Char => 'c',
    }
}

/// The nodes to make.
pub(super) fn nodes(devices: &[HostDevice]) -> Result<Vec<oci::LinuxDevice>, SpecError> {
    devices.iter().map(node).collect()
}

fn node(device: &HostDevice) -> Result<oci::LinuxDevice, SpecError> {
    let wrong = |problem| SpecError::Device { path: device.path.clone(), problem };
    if !is_plain(&device.path) {
        return Err(wrong("the path inside the container must be absolute and without `..`"));
    }
    let access = &device.access;
    if access.is_empty() || !access.chars().all(|letter| matches!(letter, 'r' | 'w' | 'm')) {
        return Err(wrong("the permissions must be of the letters r, w and m"));
    }
    let mut node = oci::LinuxDevice::default();
    node.set_path(device.path.clone())
        .set_typ(match device.kind {
            DeviceKind::Block => oci::LinuxDeviceType::B,
            DeviceKind::Char => oci::LinuxDeviceType::C,
        })
        .set_major(i64::from(device.major))
        .set_minor(i64::from(device.minor))
        .set_file_mode(Some(device.mode))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    Ok(node)
}

fn is_plain(path: &Path) -> bool {
    let named = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    named && path.is_absolute() && path != Path::new("/") && !path.as_os_str().as_encoded_bytes().contains(&0)
}

/// The rules as the runtime spec lists them: first everything is denied.
pub(super) fn cgroup_rules(privileged: bool, devices: &[HostDevice]) -> Vec<oci::LinuxDeviceCgroup> {
    let all = DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_string() };
    let denied = (!privileged).then_some((false, all));
    let allowed = device_rules(privileged, devices).into_iter().map(|rule| (true, rule));
    let rules = denied.into_iter().chain(allowed);
    rules
        .map(|(allow, rule)| {
            let kind = match rule.kind {
                'b' => oci::LinuxDeviceType::B,
                'c' => oci::LinuxDeviceType::C,
                _ => oci::LinuxDeviceType::A,
            };
            let mut listed = oci::LinuxDeviceCgroup::default();
            listed
                .set_allow(allow)
                .set_typ(Some(kind))
                .set_major(rule.major.map(i64::from))
                .set_minor(rule.minor.map(i64::from))
                .set_access(Some(rule.access));
            listed
        })
        .collect()
}
