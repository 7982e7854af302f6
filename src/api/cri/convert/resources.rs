//! LinuxContainerResources. In CRI a zero means: not asked for.

use std::collections::BTreeMap;

use berth_proto::cri::v1;

use super::{Invalid, required};
use crate::containers::spec::{HugepageLimit, Resources};
use crate::pods::spec::PodLimits;

pub(in crate::api::cri) fn from_cri(
    linux: v1::LinuxContainerResources,
    field: &str,
) -> Result<Resources, Invalid> {
    let unsigned = |value: i64, name: &str| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Invalid::new(format!("{field}.{name}"), format!("{value} is negative"))),
    };
    let signed = |value: i64| if value == 0 { None } else { Some(value) };
    let score = i32::try_from(linux.oom_score_adj).ok().filter(|score| (-1000..=1000).contains(score));
    let score = score.ok_or_else(|| {
        Invalid::new(
            format!("{field}.oom_score_adj"),
            format!("{} is not in -1000..=1000", linux.oom_score_adj),
        )
    })?;
    Ok(Resources {
        cpu_period: unsigned(linux.cpu_period, "cpu_period")?,
        cpu_quota: signed(linux.cpu_quota),
        cpu_shares: unsigned(linux.cpu_shares, "cpu_shares")?,
        memory_limit: signed(linux.memory_limit_in_bytes),
        memory_swap_limit: signed(linux.memory_swap_limit_in_bytes),
        oom_score_adj: Some(score),
        cpuset_cpus: linux.cpuset_cpus,
        cpuset_mems: linux.cpuset_mems,
        hugepage_limits: linux
            .hugepage_limits
            .into_iter()
            .map(|limit| HugepageLimit { page_size: limit.page_size, limit: limit.limit })
            .collect(),
        unified: linux.unified.into_iter().collect::<BTreeMap<_, _>>(),
        pids_limit: None,
    })
}

/// For an update, where an OOM score of 0 means, like the other zeros, that the request does not say.
pub(in crate::api::cri) fn change_from_cri(
    linux: Option<v1::LinuxContainerResources>,
) -> Result<Resources, Invalid> {
    let mut change = from_cri(required(linux, "linux")?, "linux")?;
    change.oom_score_adj = change.oom_score_adj.filter(|score| *score != 0);
    Ok(change)
}

/// Of UpdatePodSandboxResources.
pub(in crate::api::cri) fn pod_limits(
    overhead: Option<v1::LinuxContainerResources>,
    resources: Option<v1::LinuxContainerResources>,
) -> Result<PodLimits, Invalid> {
    Ok(PodLimits {
        overhead: overhead.map(|linux| from_cri(linux, "overhead")).transpose()?,
        resources: resources.map(|linux| from_cri(linux, "resources")).transpose()?,
    })
}

pub(in crate::api::cri) fn to_cri(resources: &Resources) -> v1::LinuxContainerResources {
    let unsigned = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    v1::LinuxContainerResources {
        cpu_period: unsigned(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpu_shares: unsigned(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit.unwrap_or(0),
        oom_score_adj: i64::from(resources.oom_score_adj.unwrap_or(0)),
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|limit| v1::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: resources.unified.clone(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit.unwrap_or(0),
    }
}
