//! Names of block devices. What does not live here: what goes through them.

use std::fs;

/// `/dev/` and the kernel's name of a device; its number where it has none, as the devices of overlays and tmpfs.
/// Blocking, for some microseconds.
pub fn device_name(major: u32, minor: u32) -> String {
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    match link.as_ref().and_then(|link| link.file_name()) {
        Some(name) => format!("/dev/{}", name.to_string_lossy()),
        None => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_sysfs() {
        for entry in fs::read_dir("/sys/dev/block").into_iter().flatten().flatten() {
            let number = entry.file_name().into_string().unwrap();
            let (major, minor) = number.split_once(':').unwrap();
            let name = device_name(major.parse().unwrap(), minor.parse().unwrap());
            let kernel = name.strip_prefix("/dev/").unwrap();
            assert!(std::path::Path::new("/sys/class/block").join(kernel).exists(), "{name}");
        }
        assert_eq!(device_name(0, 4095), "0:4095");
    }
}
