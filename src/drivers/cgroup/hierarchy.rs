//! Which hierarchies the host has, and the directories of a cgroup in them. What does not live here: limits.

use std::path::{Path, PathBuf};

use cgroups_rs::fs::hierarchies;

use super::error::CgroupError;

/// Version of the control group interface that limits go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Version 1, also on hosts that mount version 2 beside it for systemd ("hybrid").
    V1,
    /// Version 2 alone ("unified").
    V2,
}

/// One version 1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its controllers, or `name=...`.
    pub controllers: Vec<String>,
}

/// What the host has.
#[derive(Clone, Debug)]
pub(super) enum Hierarchies {
    /// Every version 1 hierarchy, the named ones too: else systemd would count a container as part of the daemon's service.
    V1(Vec<Hierarchy>),
    /// The mount point of version 2.
    V2(PathBuf),
}

/// Mount options of a cgroup file system that are no controllers.
const OPTIONS: [&str; 9] = [
    "rw",
    "ro",
    "xattr",
    "noprefix",
    "clone_children",
    "cpuset_v2_mode",
    "favordynmods",
    "nosuid",
    "relatime",
];

impl Hierarchies {
    /// Looks at the host. cgroups-rs tells the versions and the mounts; its own directory handling is not used, because it
    /// assumes one set of controllers, follows `create_dir_all` and can't say which file refused which value.
    pub fn detect() -> Result<Self, CgroupError> {
        if hierarchies::is_cgroup2_unified_mode() {
            return Ok(Self::V2(hierarchies::UNIFIED_MOUNTPOINT.into()));
        }
        let mut found: Vec<Hierarchy> = Vec::new();
        for mount in hierarchies::mountinfo_self() {
            let controllers: Vec<String> = mount
                .super_opts
                .into_iter()
                .filter(|o| !OPTIONS.contains(&o.as_str()) && !o.starts_with("release_agent="))
                .collect();
            if !controllers.is_empty() && found.iter().all(|h| h.controllers != controllers) {
                found.push(Hierarchy { mount: mount.mount_point, controllers });
            }
        }
        if found.is_empty() { Err(CgroupError::NoHierarchy) } else { Ok(Self::V1(found)) }
    }

    /// Version.
    pub fn mode(&self) -> Mode {
        match self {
            Self::V1(_) => Mode::V1,
            Self::V2(_) => Mode::V2,
        }
    }

    /// The directory of a cgroup in each hierarchy.
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        self.mounts().map(|mount| below(mount, path)).collect()
    }

    /// Mount points.
    pub fn mounts(&self) -> impl Iterator<Item = &Path> {
        let (v1, v2) = match self {
            Self::V1(all) => (all.as_slice(), None),
            Self::V2(root) => (&[][..], Some(root.as_path())),
        };
        v1.iter().map(|h| h.mount.as_path()).chain(v2)
    }

    /// The directory of a cgroup where the files of a controller are; None where version 1 does not have the controller.
    pub fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::V1(all) => all
                .iter()
                .find(|h| h.controllers.iter().any(|c| c == controller))
                .map(|h| below(&h.mount, path)),
            Self::V2(root) => Some(below(root, path)),
        }
    }

    /// The directory whose process list speaks for the cgroup.
    pub fn process_dir(&self, path: &str) -> Option<PathBuf> {
        ["freezer", "pids", "devices"]
            .iter()
            .find_map(|c| self.dir(c, path))
            .or_else(|| self.mounts().next().map(|m| below(m, path)))
    }
}

/// A cgroup's absolute path below a mount point.
pub(super) fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_are_mounted_together_share_a_directory() {
        let both = vec!["cpu".to_string(), "cpuacct".to_string()];
        let all = Hierarchies::V1(vec![Hierarchy { mount: "/c/cpu,cpuacct".into(), controllers: both }]);
        assert_eq!(all.dir("cpuacct", "/a/b"), Some("/c/cpu,cpuacct/a/b".into()));
        assert_eq!(all.dirs("/a"), [PathBuf::from("/c/cpu,cpuacct/a")]);
        assert_eq!(all.dir("memory", "/a"), None);
        assert_eq!(Hierarchies::V2("/c".into()).dir("memory", "/a"), Some("/c/a".into()));
    }
}
