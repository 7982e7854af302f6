//! Limits in the files of cgroup version 1 (kernel documentation, admin-guide/cgroup-v1). Pure but for reading current values.

use crate::containers::spec::Resources;

use super::error::CgroupError;
use super::limits;
use super::setting::{Current, Setting};

const LIMIT: &str = "memory.limit_in_bytes";
const MEMSW: &str = "memory.memsw.limit_in_bytes";

/// What to write, in an order that the kernel takes at every step.
pub(super) fn settings(resources: &Resources, current: &dyn Current) -> Result<Vec<Setting>, CgroupError> {
    let resources = &limits::asked(resources);
    limits::validate(resources)?;
    if let Some((file, value)) = resources.unified.iter().next() {
        return Err(CgroupError::Resource {
            resource: "unified resource",
            value: format!("{file}={value}"),
            reason: "this host has cgroup v1; unified resources exist on v2 only",
        });
    }
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(Setting::new("cpu", "cpu.shares", shares, "cpu shares"));
    }
    cpu_bandwidth(resources, current, &mut settings);
    memory(resources, current, &mut settings);
    if !resources.cpuset_cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &resources.cpuset_cpus, "cpuset cpus"));
    }
    if !resources.cpuset_mems.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.mems", &resources.cpuset_mems, "cpuset mems"));
    }
    limits::hugepages(resources, current, ".limit_in_bytes", &mut settings);
    if let Some(pids) = resources.pids_limit {
        settings.push(Setting::new("pids", "pids.max", limits::max_or(pids), "pids limit"));
    }
    Ok(settings)
}

/// Bandwidth is quota / period and may never exceed the parent's in between: a longer period goes first, a shorter one last.
fn cpu_bandwidth(resources: &Resources, current: &dyn Current, settings: &mut Vec<Setting>) {
    let quota = resources.cpu_quota.map(|quota| {
        Setting::new("cpu", "cpu.cfs_quota_us", if quota < 0 { -1 } else { quota }, "cpu quota")
    });
    let period =
        resources.cpu_period.map(|period| Setting::new("cpu", "cpu.cfs_period_us", period, "cpu period"));
    let old = current.read("cpu", "cpu.cfs_period_us").and_then(|text| text.parse::<u64>().ok());
    if resources.cpu_period > old {
        settings.extend(period.into_iter().chain(quota));
    } else {
        settings.extend(quota.into_iter().chain(period));
    }
}

/// memory <= memory+swap must hold after each write. Without swap accounting only memory is limited.
fn memory(resources: &Resources, current: &dyn Current, settings: &mut Vec<Setting>) {
    let now = |file| current.read("memory", file).and_then(|text| text.parse::<u64>().ok());
    let old_swap = now(MEMSW);
    let memory = resources.memory_limit;
    let mut swap = resources.memory_swap_limit;
    if let (Some(memory), None, Some(old_swap)) = (memory, swap, old_swap) {
        // Only memory is asked for, and it would pass memory+swap: the swap on top stays what it was.
        if memory < 0 {
            swap = Some(-1);
        } else if memory.unsigned_abs() > old_swap {
            let on_top = old_swap.saturating_sub(now(LIMIT).unwrap_or(old_swap));
            swap = Some(memory.saturating_add_unsigned(on_top));
        }
    }
    if swap.is_some() && old_swap.is_none() {
        tracing::debug!("the kernel does not account swap: the limit of memory and swap is left out");
        swap = None;
    }
    let setting = |file, resource, value: i64| {
        Setting::new("memory", file, if value < 0 { -1 } else { value }, resource)
    };
    let memory_setting = memory.map(|value| setting(LIMIT, "memory limit", value));
    let swap_setting = swap.map(|value| setting(MEMSW, "memory and swap limit", value));
    let raises_swap =
        matches!((swap, old_swap), (Some(new), Some(old)) if new < 0 || new.unsigned_abs() > old);
    if raises_swap {
        settings.extend(swap_setting.into_iter().chain(memory_setting));
    } else {
        settings.extend(memory_setting.into_iter().chain(swap_setting));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(resources: &Resources, now: &[(&str, &str)]) -> Vec<String> {
        let read = |_: &str, file: &str| now.iter().find(|(f, _)| *f == file).map(|(_, v)| (*v).to_string());
        let settings = settings(resources, &read).unwrap();
        settings.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn memory_never_exceeds_memory_and_swap_in_between() {
        let now = [(LIMIT, "1000"), (MEMSW, "2000")];
        let ask = |memory, swap| Resources {
            memory_limit: memory,
            memory_swap_limit: swap,
            ..Resources::default()
        };
        let swap_first = ["memory.memsw.limit_in_bytes=4000", "memory.limit_in_bytes=3000"];
        assert_eq!(files(&ask(Some(3000), Some(4000)), &now), swap_first);
        let memory_first = ["memory.limit_in_bytes=300", "memory.memsw.limit_in_bytes=400"];
        assert_eq!(files(&ask(Some(300), Some(400)), &now), memory_first);
        assert_eq!(files(&ask(Some(1500), None), &now), ["memory.limit_in_bytes=1500"]);
        assert_eq!(files(&ask(Some(3000), None), &now), swap_first);
        assert_eq!(
            files(&ask(Some(-1), None), &now),
            ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]
        );
        assert_eq!(files(&ask(Some(3000), Some(4000)), &[(LIMIT, "1000")]), ["memory.limit_in_bytes=3000"]);
    }

    #[test]
    fn a_longer_period_goes_before_the_quota_and_a_shorter_one_after() {
        let now = [("cpu.cfs_period_us", "100000")];
        let ask =
            |period| Resources { cpu_quota: Some(5000), cpu_period: Some(period), ..Resources::default() };
        assert_eq!(files(&ask(200_000), &now), ["cpu.cfs_period_us=200000", "cpu.cfs_quota_us=5000"]);
        assert_eq!(files(&ask(50_000), &now), ["cpu.cfs_quota_us=5000", "cpu.cfs_period_us=50000"]);
    }

    #[test]
    fn unified_resources_are_refused() {
        let resources =
            Resources { unified: [("memory.high".into(), "1".into())].into(), ..Resources::default() };
        assert!(settings(&resources, &|_: &str, _: &str| None).is_err());
    }
}
