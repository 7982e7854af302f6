//! What both versions of cgroups have in common: which limits make sense at all, huge pages, numbers.

use std::fmt;

use crate::containers::spec::Resources;

use super::error::CgroupError;
use super::setting::{Current, Setting};

/// The limits that are asked for: a 0 means, like None, that the request does not say.
pub(super) fn asked(resources: &Resources) -> Resources {
    let mut asked = resources.clone();
    asked.cpu_period = asked.cpu_period.filter(|n| *n != 0);
    asked.cpu_quota = asked.cpu_quota.filter(|n| *n != 0);
    asked.cpu_shares = asked.cpu_shares.filter(|n| *n != 0);
    asked.memory_limit = asked.memory_limit.filter(|n| *n != 0);
    asked.memory_swap_limit = asked.memory_swap_limit.filter(|n| *n != 0);
    asked
}

/// Refuses what the kernel would refuse or bend silently, with the limit's name in it.
pub(super) fn validate(resources: &Resources) -> Result<(), CgroupError> {
    let refuse = |resource, value: &dyn fmt::Display, reason| {
        Err(CgroupError::Resource { resource, value: value.to_string(), reason })
    };
    match resources {
        Resources { cpu_shares: Some(shares), .. } if !(2..=262_144).contains(shares) => {
            refuse("cpu shares", shares, "the kernel takes 2 to 262144")
        }
        Resources { cpu_quota: Some(quota), .. } if (0..1000).contains(quota) => refuse(
            "cpu quota",
            quota,
            "the kernel takes 1000 microseconds and more, or a negative number for no limit",
        ),
        Resources { cpu_period: Some(period), .. } if !(1000..=1_000_000).contains(period) => {
            refuse("cpu period", period, "the kernel takes 1000 to 1000000 microseconds")
        }
        Resources { memory_limit: Some(memory), memory_swap_limit: Some(swap), .. }
            if *swap >= 0 && (*memory < 0 || swap < memory) =>
        {
            refuse("memory and swap limit", swap, "it is less than the memory limit, which it includes")
        }
        resources => cpuset_and_pages(resources),
    }
}

fn cpuset_and_pages(resources: &Resources) -> Result<(), CgroupError> {
    let is_list = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b",-:/ ".contains(&b));
    for (resource, list) in [("cpuset cpus", &resources.cpuset_cpus), ("cpuset mems", &resources.cpuset_mems)]
    {
        if !is_list(list) {
            return Err(CgroupError::Resource {
                resource,
                value: list.clone(),
                reason: "not a list like 0-3,8",
            });
        }
    }
    let is_size = |size: &str| {
        let digits = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    };
    match resources.hugepage_limits.iter().find(|limit| !is_size(&limit.page_size)) {
        Some(limit) => Err(CgroupError::Resource {
            resource: "huge page size",
            value: limit.page_size.clone(),
            reason: "not a size like 2MB",
        }),
        None => Ok(()),
    }
}

/// Huge page limits. Sizes that the kernel does not have are left out: the kubelet names every size of every pod, and
/// there is nothing to use.
pub(super) fn hugepages(
    resources: &Resources,
    current: &dyn Current,
    suffix: &str,
    settings: &mut Vec<Setting>,
) {
    for limit in &resources.hugepage_limits {
        let file = format!("hugetlb.{}{suffix}", limit.page_size);
        if current.read("hugetlb", &file).is_none() {
            if limit.limit > 0 {
                tracing::warn!(size = %limit.page_size, "huge pages are not limited: the kernel has no such cgroup file");
            }
            continue;
        }
        settings.push(Setting::new("hugetlb", file, limit.limit, "huge page limit"));
        // Reservations are counted apart since Linux 5.7: without this a mapping could reserve beyond the limit.
        let reserved = format!("hugetlb.{}.rsvd{suffix}", limit.page_size);
        if current.read("hugetlb", &reserved).is_some() {
            settings.push(Setting::new("hugetlb", reserved, limit.limit, "huge page reservation limit"));
        }
    }
}

/// A number, or `max` where it means no limit.
pub(super) fn max_or(limit: i64) -> String {
    if limit <= 0 { "max".into() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::spec::HugepageLimit;

    #[test]
    fn impossible_limits_are_refused_by_name() {
        let none = Resources::default;
        let page = |size: &str| vec![HugepageLimit { page_size: size.into(), limit: 1 }];
        let bad = [
            ("cpu shares", Resources { cpu_shares: Some(1), ..none() }),
            ("cpu shares", Resources { cpu_shares: Some(262_145), ..none() }),
            ("cpu quota", Resources { cpu_quota: Some(999), ..none() }),
            ("cpu period", Resources { cpu_period: Some(999), ..none() }),
            ("swap", Resources { memory_limit: Some(5), memory_swap_limit: Some(4), ..none() }),
            ("swap", Resources { memory_limit: Some(-1), memory_swap_limit: Some(4), ..none() }),
            ("cpuset", Resources { cpuset_cpus: "0-1\n".into(), ..none() }),
            ("page", Resources { hugepage_limits: page("../2MB"), ..none() }),
            ("page", Resources { hugepage_limits: page("MB"), ..none() }),
        ];
        for (name, resources) in bad {
            let error = validate(&resources).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
        let good = Resources {
            cpu_shares: Some(2),
            cpu_quota: Some(-1),
            cpu_period: Some(1000),
            memory_limit: Some(1),
            memory_swap_limit: Some(-1),
            cpuset_cpus: "0-1,3".into(),
            hugepage_limits: page("2MB"),
            ..none()
        };
        validate(&good).unwrap();
    }

    #[test]
    fn an_unknown_page_size_is_left_out() {
        let resources = Resources {
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4 }],
            ..Resources::default()
        };
        let mut settings = Vec::new();
        hugepages(&resources, &|_: &str, _: &str| None, ".max", &mut settings);
        assert!(settings.is_empty());
        hugepages(&resources, &|_: &str, _: &str| Some(String::new()), ".max", &mut settings);
        let files: Vec<&str> = settings.iter().map(|s| s.file.as_str()).collect();
        assert_eq!(files, ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]);
    }
}
