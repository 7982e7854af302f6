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

/// Puts other limits into a spec that was made before; devices and the number of processes stay.
pub fn set_limits(spec: &mut oci::Spec, limits: &Resources) {
    if let Some(process) = spec.process_mut() {
        process.set_oom_score_adj(limits.oom_score_adj);
    }
    let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) else {
        return;
    };
    resources.set_cpu(cpu(limits)).set_memory(memory(limits));
    if !limits.hugepage_limits.is_empty() {
        resources.set_hugepage_limits(Some(limits.hugepage_limits.iter().map(hugepages).collect()));
    }
    if !limits.unified.is_empty() {
        resources.set_unified(Some(limits.unified.clone().into_iter().collect()));
    }
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
