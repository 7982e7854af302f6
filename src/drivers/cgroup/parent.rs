//! Whether a cgroup parent may be used, and where it lies. Nothing here touches the host.

use super::Driver;
use super::error::CgroupError;

/// Kernel and systemd limit on one name.
const NAME_MAX: usize = 255;

/// The parent's path from the root of the hierarchy, absolute, without a slash at the end (the root itself is empty).
pub(super) fn path(driver: Driver, parent: &str) -> Result<String, CgroupError> {
    let refuse = |reason| CgroupError::Parent { parent: parent.chars().take(300).collect(), reason };
    match driver {
        Driver::Systemd => slice_path(slice_name(parent)).ok_or_else(|| {
            refuse(
                "with the systemd driver it must be the name of a slice, like kubepods-burstable-pod1.slice",
            )
        }),
        Driver::Auto | Driver::Cgroupfs => {
            if !parent.starts_with('/') {
                return Err(refuse(
                    "with the cgroupfs driver it must be an absolute path, like /kubepods/burstable/pod1",
                ));
            }
            if parent.len() > 4000 || !parent.split('/').filter(|name| !name.is_empty()).all(is_plain) {
                return Err(refuse(
                    "its names must be plain: no \"..\", no control characters, at most 255 bytes each",
                ));
            }
            let names: Vec<&str> = parent.split('/').filter(|name| !name.is_empty()).collect();
            Ok(names.iter().map(|name| format!("/{name}")).collect())
        }
    }
}

/// For `#[serde(deserialize_with)]`: fit for one of the drivers, or empty. Which driver it is shows later.
pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let parent = <String as serde::Deserialize>::deserialize(deserializer)?;
    if parent.is_empty() || path(Driver::Cgroupfs, &parent).is_ok() || path(Driver::Systemd, &parent).is_ok()
    {
        return Ok(parent);
    }
    let wanted = "an absolute path without \"..\", or the name of a systemd slice";
    Err(serde::de::Error::custom(format!("{parent:?} can not be a cgroup parent: that is {wanted}")))
}

/// The unit's name, of `a-b.slice` as of `/a.slice/a-b.slice`.
pub(super) fn slice_name(parent: &str) -> &str {
    match parent.rsplit_once('/') {
        Some((_, name))
            if slice_path(name)
                .is_some_and(|path| path.trim_start_matches('/') == parent.trim_start_matches('/')) =>
        {
            name
        }
        _ => parent,
    }
}

fn is_plain(name: &str) -> bool {
    name != "." && name != ".." && name.len() <= NAME_MAX && !name.chars().any(char::is_control)
}

/// Where systemd puts a slice: `a-b.slice` is `/a.slice/a-b.slice` (systemd.slice(5)). `-.slice` is the root.
///
/// Written here and not taken from cgroups-rs, which strips `.slice` as often as it stands at the end and takes any character.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":_.-\\@".contains(&b);
    if slice.len() > NAME_MAX || !name.bytes().all(allowed) || name.contains("..") {
        return None;
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        prefix.push_str(part);
        path.push('/');
        path.push_str(&prefix);
        path.push_str(".slice");
        prefix.push('-');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_below_the_slices_its_name_tells() {
        let path = |slice| path(Driver::Systemd, slice).unwrap();
        assert_eq!(path("kubepods.slice"), "/kubepods.slice");
        assert_eq!(path("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(path("/a.slice/a-b.slice"), "/a.slice/a-b.slice");
        assert_eq!(path("-.slice"), "");
        assert_eq!(path("kubepods-pod1_2.slice"), "/kubepods.slice/kubepods-pod1_2.slice");
    }

    #[test]
    fn a_parent_that_leads_elsewhere_is_refused() {
        let long = format!("/{}", "x".repeat(256));
        for bad in ["", "a", "a.slice", "/..", "/a/../b", "/a/.", "/a\nb", "/a\0", &long] {
            assert!(path(Driver::Cgroupfs, bad).is_err(), "{bad:?}");
        }
        let long = format!("{}.slice", "x".repeat(250));
        let bad = [
            "",
            ".slice",
            "a",
            "/a",
            "a.scope",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "../a.slice",
            "/b.slice/a.slice",
            "a b.slice",
            "a\n.slice",
            "a/b.slice",
            "--.slice",
            "a..b.slice",
            &long,
        ];
        for bad in bad {
            assert!(path(Driver::Systemd, bad).is_err(), "{bad:?}");
        }
        assert_eq!(path(Driver::Cgroupfs, "/").unwrap(), "");
        assert_eq!(path(Driver::Cgroupfs, "//a//b/").unwrap(), "/a/b");
    }
}
