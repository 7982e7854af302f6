//! Makes cgroups: directories, controllers, limits, devices; all of it or nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::containers::spec::Resources;
use crate::telemetry::Leak;

use super::devices::{self, DeviceRules, Filters};
use super::error::CgroupError;
use super::hierarchy::{Hierarchies, below};
use super::setting::{self, Setting};
use super::{v1, v2};

/// Makes a cgroup and what is missing above it, in every hierarchy; on version 2 with controllers enabled down to it, on
/// version 1 with a usable cpuset. Returns the directories that did not exist, outermost first, `path`'s own last.
pub(super) fn make(hierarchies: &Hierarchies, path: &str) -> Result<Vec<PathBuf>, CgroupError> {
    let mut made = Vec::new();
    let result = hierarchies.mounts().try_for_each(|mount| make_in(hierarchies, mount, path, &mut made));
    if result.is_err() {
        undo(&made);
    }
    result.map(|()| made)
}

/// Removes directories that were just made.
pub(super) fn undo(made: &[PathBuf]) {
    for dir in made.iter().rev() {
        if let Err(error) = std::fs::remove_dir(dir) {
            Leak::Cgroup.found();
            tracing::warn!(path = %dir.display(), %error, "a new cgroup could not be removed again");
        }
    }
}

fn make_in(
    hierarchies: &Hierarchies,
    mount: &Path,
    path: &str,
    made: &mut Vec<PathBuf>,
) -> Result<(), CgroupError> {
    let cpuset = matches!(hierarchies, Hierarchies::V1(_))
        && hierarchies.dir("cpuset", "").as_deref().is_some_and(|d| same(d, mount));
    let v2 = matches!(hierarchies, Hierarchies::V2(_));
    let mut dir = mount.to_path_buf();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if v2 {
            v2::enable_controllers(&dir)?;
        }
        let parent = dir.clone();
        dir.push(name);
        match std::fs::create_dir(&dir) {
            Ok(()) => made.push(dir.clone()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError::Create { path: dir, source }),
        }
        if cpuset {
            inherit_cpuset(&parent, &dir)?;
        }
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

/// A version 1 cpuset begins empty and then takes no task: it gets what its parent has.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |dir: &Path| {
            let path = dir.join(file);
            std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
        };
        if !read(dir)?.trim().is_empty() {
            continue;
        }
        let value = read(parent)?.trim().to_string();
        let path = dir.join(file);
        setting::write(&path, &value).map_err(|source| CgroupError::Write {
            resource: "cpuset of the parent",
            path,
            value,
            source,
        })?;
    }
    Ok(())
}

/// Makes a container's cgroup with its limits and devices.
pub(super) fn container(
    hierarchies: &Hierarchies,
    filters: &Filters,
    path: &str,
    limits: (&Resources, &DeviceRules),
    oom_group: bool,
) -> Result<(), CgroupError> {
    let (resources, rules) = limits;
    let made = make(hierarchies, path)?;
    let result = settings(hierarchies, path, resources).and_then(|mut settings| {
        if oom_group
            && matches!(hierarchies, Hierarchies::V2(_))
            && !resources.unified.contains_key("memory.oom.group")
        {
            settings.push(Setting::new("memory", "memory.oom.group", 1, "killing all of a container at OOM"));
        }
        setting::apply(&settings, &|controller| hierarchies.dir(controller, path))?.forget();
        match hierarchies {
            Hierarchies::V2(root) => filters.restrict(&below(root, path), rules),
            Hierarchies::V1(_) => match hierarchies.dir("devices", path) {
                Some(dir) => devices::restrict_v1(&dir, rules),
                None if *rules == DeviceRules::All => Ok(()),
                None => Err(CgroupError::Unenforceable {
                    resource: "allowed devices",
                    value: "list".into(),
                    file: "devices.allow".into(),
                }),
            },
        }
    });
    if result.is_err() && !made.is_empty() {
        // The directories are ours and empty; what was there before stays.
        undo(&made);
    }
    result
}

/// What the limits mean for the host's version.
pub(super) fn settings(
    hierarchies: &Hierarchies,
    path: &str,
    resources: &Resources,
) -> Result<Vec<Setting>, CgroupError> {
    let current = |controller: &str, file: &str| {
        let text = std::fs::read_to_string(hierarchies.dir(controller, path)?.join(file)).ok()?;
        Some(text.trim().to_string())
    };
    match hierarchies {
        Hierarchies::V1(_) => v1::settings(resources, &current),
        Hierarchies::V2(_) => v2::settings(resources, &current),
    }
}
