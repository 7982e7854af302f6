//! Limits of a container as the runtime spec lists them. The cgroup driver sets them from the container's spec; here
//! they serve `crictl inspect` and other OCI runtimes.

use oci_spec::runtime as oci;

use super::{Inputs, SpecError, devices};
use crate::containers::spec::Resources;

/// `linux.resources` (runtime-spec, config-linux.md "Control groups").
pub(super) fn resources(inputs: &Inputs<'_>) -> Result<oci::LinuxResources, SpecError> {
    let asked = &inputs.container.resources;
    let mut resources = oci::LinuxResources::default();
    resources
        .set_devices(Some(devices::cgroup_rules(inputs.container.security.privileged, inputs.devices)))
        .set_cpu(cpu(asked))
        .set_memory(memory(asked));
    if let Some(limit) = asked.pids_limit {
        let mut pids = oci::LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if !asked.hugepage_limits.is_empty() {
        resources.set_hugepage_limits(Some(asked.hugepage_limits.iter().map(hugepages).collect()));
    }
    if !asked.unified.is_empty() {
        let unified = asked.unified.iter().map(|(file, value)| (file.clone(), value.clone()));
        resources.set_unified(Some(unified.collect()));
    }
    Ok(resources)
}

fn cpu(asked: &Resources) -> Option<oci::LinuxCpu> {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(asked.cpu_shares)
        .set_quota(asked.cpu_quota)
        .set_period(asked.cpu_period)
        .set_cpus(text(&asked.cpuset_cpus))
        .set_mems(text(&asked.cpuset_mems));
    (cpu != oci::LinuxCpu::default()).then_some(cpu)
}

fn memory(asked: &Resources) -> Option<oci::LinuxMemory> {
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit(asked.memory_limit).set_swap(asked.memory_swap_limit);
    (memory != oci::LinuxMemory::default()).then_some(memory)
}

fn hugepages(asked: &crate::containers::spec::HugepageLimit) -> oci::LinuxHugepageLimit {
    let mut limit = oci::LinuxHugepageLimit::default();
    limit.set_page_size(asked.page_size.clone()).set_limit(i64::try_from(asked.limit).unwrap_or(i64::MAX));
    limit
}
