//! Changes the limits of a running container: all of them, or none.

use std::fs;
use std::path::Path;

use crate::containers::spec::Resources;

use super::create;
use super::error::CgroupError;
use super::hierarchy::Hierarchies;
use super::setting::{self, Undo};

/// Writes new limits; what the request does not name stays.
pub(super) fn container(
    hierarchies: &Hierarchies,
    path: &str,
    resources: &Resources,
) -> Result<Undo, CgroupError> {
    let settings = create::settings(hierarchies, path, resources)?;
    match hierarchies {
        Hierarchies::V1(_) => widen_cpuset(hierarchies, path, resources)?,
        Hierarchies::V2(_) => {
            let limit =
                resources.memory_limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
            if let (Some(limit), Some(dir)) = (limit, hierarchies.dir("memory", path)) {
                fit_memory(&dir, limit)?;
            }
        }
    }
    setting::apply(&settings, &|controller| hierarchies.dir(controller, path))
}

/// Version 2 takes a limit below the usage and then kills processes; version 1 refuses it with EBUSY. Here it is refused
/// on both, after the kernel was asked to give back what it can (memory.reclaim, Linux 5.19).
fn fit_memory(dir: &Path, limit: u64) -> Result<(), CgroupError> {
    let usage = || {
        fs::read_to_string(dir.join("memory.current")).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    let Some(used) = usage().filter(|used| *used > limit) else {
        return Ok(());
    };
    // An error here only says that less could be reclaimed; the usage decides.
    let _ = setting::write(&dir.join("memory.reclaim"), &(used - limit).to_string());
    match usage() {
        Some(used) if used > limit => Err(CgroupError::Write {
            resource: "memory limit (the container uses more than that)",
            path: dir.join("memory.max"),
            value: limit.to_string(),
            source: std::io::Error::from(rustix::io::Errno::BUSY),
        }),
        _ => Ok(()),
    }
}

/// On version 1 the pod's own cgroup has a copy of its parent's cpuset, of the time it was made. The kubelet may have
/// changed the parent since, and a container can't get more than the pod has: the copy is renewed.
fn widen_cpuset(hierarchies: &Hierarchies, path: &str, resources: &Resources) -> Result<(), CgroupError> {
    let Some((pod, _)) = path.rsplit_once('/') else {
        return Ok(());
    };
    let Some((parent, _)) = pod.rsplit_once('/') else {
        return Ok(());
    };
    let asked = [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)];
    for (file, _) in asked.iter().filter(|(_, list)| !list.is_empty()) {
        let (Some(pod), Some(parent)) = (hierarchies.dir("cpuset", pod), hierarchies.dir("cpuset", parent))
        else {
            return Ok(());
        };
        let source = parent.join(file);
        let value =
            fs::read_to_string(&source).map_err(|error| CgroupError::Read { path: source, source: error })?;
        // A narrower parent has been forced on the pod by the kernel already; other refusals show at the container's own write.
        if let Err(error) = setting::write(&pod.join(file), value.trim()) {
            tracing::debug!(path = %pod.display(), file, %error, "the pod's cpuset is not renewed");
        }
    }
    Ok(())
}
