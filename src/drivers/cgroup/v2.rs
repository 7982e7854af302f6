//! Limits in the files of cgroup version 2 (kernel documentation, admin-guide/cgroup-v2), and passing controllers down.

use std::path::Path;

use crate::containers::spec::Resources;

use super::error::CgroupError;
use super::limits;
use super::setting::{self, Current, Setting};

/// Controllers that containers get, as far as the kernel has them.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];

/// What to write, `unified` last: it is the more exact wish.
pub(super) fn settings(resources: &Resources, current: &dyn Current) -> Result<Vec<Setting>, CgroupError> {
    let resources = &limits::asked(resources);
    limits::validate(resources)?;
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(Setting::new("cpu", "cpu.weight", weight(shares), "cpu shares"));
    }
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        settings.push(Setting::new("cpu", "cpu.max", cpu_max(resources, current), "cpu quota and period"));
    }
    memory(resources, current, &mut settings)?;
    if !resources.cpuset_cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &resources.cpuset_cpus, "cpuset cpus"));
    }
    if !resources.cpuset_mems.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.mems", &resources.cpuset_mems, "cpuset mems"));
    }
    limits::hugepages(resources, current, ".max", &mut settings);
    if let Some(pids) = resources.pids_limit {
        settings.push(Setting::new("pids", "pids.max", limits::max_or(pids), "pids limit"));
    }
    for (file, value) in &resources.unified {
        unified(file, value)?;
        settings.push(Setting::new("", file, value.trim(), "unified resource"));
    }
    Ok(settings)
}

/// cpu.weight of cgroup v1 shares, by the curve that runtimes agreed on: it maps 2, 1024, 262144 to 1, 100, 10000, so that
/// a container with the default share weighs as much as a process outside (Kubernetes, "cgroup v1 CPU shares to v2 weight", KEP-2254).
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 262144")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// Quota and period share one file: the one that is not asked for stays.
fn cpu_max(resources: &Resources, current: &dyn Current) -> String {
    let now = current.read("cpu", "cpu.max").unwrap_or_default();
    let mut now = now.split_whitespace();
    let (old_quota, old_period) = (now.next().unwrap_or("max"), now.next().unwrap_or("100000"));
    let quota = resources.cpu_quota.map_or_else(|| old_quota.to_string(), limits::max_or);
    let period = resources.cpu_period.map_or_else(|| old_period.to_string(), |period| period.to_string());
    format!("{quota} {period}")
}

fn memory(
    resources: &Resources,
    current: &dyn Current,
    settings: &mut Vec<Setting>,
) -> Result<(), CgroupError> {
    let now = |file| current.read("memory", file);
    let value = |limit: i64| {
        if limit < 0 { "max".to_string() } else { limit.to_string() }
    };
    if let Some(swap) = swap_max(resources, now("memory.max"))? {
        if now("memory.swap.max").is_some() {
            settings.push(Setting::new("memory", "memory.swap.max", value(swap), "memory and swap limit"));
        } else {
            tracing::debug!("the kernel does not account swap: the limit of memory and swap is left out");
        }
    }
    if let Some(limit) = resources.memory_limit {
        settings.push(Setting::new("memory", "memory.max", value(limit), "memory limit"));
    }
    Ok(())
}

/// memory.swap.max: swap alone, while CRI tells memory and swap together. Negative = no limit.
fn swap_max(resources: &Resources, old_memory: Option<String>) -> Result<Option<i64>, CgroupError> {
    let Some(both) = resources.memory_swap_limit else {
        return Ok(resources.memory_limit.filter(|limit| *limit < 0));
    };
    if both < 0 {
        return Ok(Some(-1));
    }
    let memory = resources.memory_limit.or_else(|| old_memory.and_then(|text| text.parse().ok()));
    match memory {
        Some(memory) if (0..=both).contains(&memory) => Ok(Some(both - memory)),
        _ => Err(CgroupError::Resource {
            resource: "memory and swap limit",
            value: both.to_string(),
            reason: "it needs a memory limit that is not greater",
        }),
    }
}

/// A file of a controller, nothing else: `cgroup.*` would move processes or delegate, a slash would leave the directory.
fn unified(file: &str, value: &str) -> Result<(), CgroupError> {
    let plain = file.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.');
    let hugetlb =
        file.starts_with("hugetlb.") && file.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    let controller = file.split_once('.').map(|(controller, _)| controller);
    let reason = if !(plain || hugetlb) || file.contains("..") || controller.is_none_or(str::is_empty) {
        "not the name of a cgroup v2 file"
    } else if controller == Some("cgroup") {
        "files of cgroup itself are no resources"
    } else if value.trim().is_empty() || value.chars().any(|c| c.is_control() && c != '\n') {
        "the value is empty or has control characters"
    } else {
        return Ok(());
    };
    Err(CgroupError::Resource { resource: "unified resource", value: format!("{file}={value}"), reason })
}

/// Enables in `dir` what it has, for its children. A controller that can't be passed down is left out with a warning:
/// whoever asks for a limit of it gets an error that names the file.
pub(super) fn enable_controllers(dir: &Path) -> Result<(), CgroupError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
    };
    let enabled = read("cgroup.subtree_control")?;
    if CONTROLLERS.iter().all(|c| enabled.split_whitespace().any(|e| e == *c)) {
        return Ok(());
    }
    let available = read("cgroup.controllers")?;
    let has = |list: &str, name: &str| list.split_whitespace().any(|c| c == name);
    let missing: Vec<&str> =
        CONTROLLERS.into_iter().filter(|c| has(&available, c) && !has(&enabled, c)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let path = dir.join("cgroup.subtree_control");
    let all: Vec<String> = missing.iter().map(|c| format!("+{c}")).collect();
    if setting::write(&path, &all.join(" ")).is_ok() {
        return Ok(());
    }
    let refused = all.iter().filter_map(|one| setting::write(&path, one).err().map(|error| (one, error)));
    let refused: Vec<_> = refused.collect();
    for (controller, error) in &refused {
        tracing::warn!(path = %path.display(), %controller, %error, "a controller is not passed down");
    }
    match refused.into_iter().next() {
        // EBUSY for every one of them: the cgroup itself has processes, nothing below it can have limits.
        Some((value, source)) if source.kind() == std::io::ErrorKind::ResourceBusy => {
            Err(CgroupError::Write {
                resource: "controllers of the cgroup's children",
                path,
                value: value.clone(),
                source,
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(resources: &Resources, now: &[(&str, &str)]) -> Result<Vec<String>, CgroupError> {
        let read = |_: &str, file: &str| now.iter().find(|(f, _)| *f == file).map(|(_, v)| (*v).to_string());
        Ok(settings(resources, &read)?.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect())
    }

    #[test]
    fn shares_become_weights_on_the_agreed_curve() {
        let table = [(2, 1), (3, 2), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)];
        for (shares, expected) in table {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).all(|shares| weight(shares) <= weight(shares + 1)));
    }

    #[test]
    fn quota_and_period_keep_what_is_not_asked_for() {
        let now = [("cpu.max", "50000 100000")];
        let ask = |quota, period| Resources { cpu_quota: quota, cpu_period: period, ..Resources::default() };
        assert_eq!(files(&ask(Some(2000), None), &now).unwrap(), ["cpu.max=2000 100000"]);
        assert_eq!(files(&ask(None, Some(2000)), &now).unwrap(), ["cpu.max=50000 2000"]);
        assert_eq!(files(&ask(Some(-1), None), &[]).unwrap(), ["cpu.max=max 100000"]);
    }

    #[test]
    fn swap_is_what_the_limit_of_both_leaves() {
        let now = [("memory.max", "1000"), ("memory.swap.max", "max")];
        let ask = |memory, swap| Resources {
            memory_limit: memory,
            memory_swap_limit: swap,
            ..Resources::default()
        };
        assert_eq!(files(&ask(Some(100), Some(100)), &now).unwrap(), ["memory.swap.max=0", "memory.max=100"]);
        assert_eq!(files(&ask(None, Some(1500)), &now).unwrap(), ["memory.swap.max=500"]);
        assert_eq!(files(&ask(Some(-1), None), &now).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(files(&ask(Some(100), Some(300)), &now[..1]).unwrap(), ["memory.max=100"]);
        assert!(files(&ask(None, Some(500)), &now).is_err());
        assert!(files(&ask(None, Some(500)), &[("memory.max", "max")]).is_err());
    }

    #[test]
    fn unified_takes_files_of_controllers_only() {
        let ask = |file: &str, value: &str| {
            files(
                &Resources {
                    unified: [(file.to_string(), value.to_string())].into(),
                    ..Resources::default()
                },
                &[],
            )
        };
        assert_eq!(ask("memory.high", "5").unwrap(), ["memory.high=5"]);
        assert_eq!(ask("hugetlb.2MB.max", "5").unwrap(), ["hugetlb.2MB.max=5"]);
        for bad in [
            "",
            "memory",
            "../memory.max",
            "a/b.c",
            "cgroup.procs",
            "cgroup.kill",
            ".procs",
            "memory..max",
            "Memory.max",
        ] {
            assert!(ask(bad, "1").is_err(), "{bad:?}");
        }
        assert!(ask("memory.high", " ").is_err());
        assert!(ask("memory.high", "1\0").is_err());
    }
}
