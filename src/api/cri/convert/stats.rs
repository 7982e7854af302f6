//! Usage as CRI's ContainerStats and PodSandboxStats, and the filters of their lists.

use std::path::Path;

use berth_proto::cri::v1::{self, UInt64Value};

use super::pod::metadata_of;
use crate::containers::{Container, ContainerStats, Filter, WritableLayer};
use crate::drivers::cgroup::stats::{Pressure, Stall, Usage};
use crate::drivers::network::InterfaceUsage;
use crate::pods::{self, NetworkStats, PodStats};

/// None means all.
pub(in crate::api::cri) fn container_filter(filter: Option<v1::ContainerStatsFilter>) -> Filter {
    let filter = filter.unwrap_or_default();
    Filter { id: filter.id, pod: filter.pod_sandbox_id, phase: None, labels: filter.label_selector }
}

/// None means all.
pub(in crate::api::cri) fn pod_filter(filter: Option<v1::PodSandboxStatsFilter>) -> pods::Filter {
    let filter = filter.unwrap_or_default();
    pods::Filter { id: filter.id, ready: None, labels: filter.label_selector }
}

/// `root` names the file system of writable layers, as ImageFsInfo does.
pub(in crate::api::cri) fn container(stats: &ContainerStats, root: &Path) -> v1::ContainerStats {
    let usage = stats.usage.as_ref();
    v1::ContainerStats {
        attributes: Some(attributes(&stats.container)),
        cpu: usage.and_then(|usage| cpu(usage, stats.nano_cores)),
        memory: usage.and_then(memory),
        writable_layer: stats.writable_layer.map(|layer| writable_layer(layer, root)),
        swap: usage.and_then(swap),
        io: usage.and_then(io),
    }
}

/// As `container`.
pub(in crate::api::cri) fn pod(stats: &PodStats, root: &Path) -> v1::PodSandboxStats {
    let (usage, spec) = (stats.usage.as_ref(), &stats.pod.sandbox.spec);
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: stats.pod.id().to_string(),
            metadata: Some(metadata_of(&stats.pod)),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: usage.and_then(|usage| cpu(usage, stats.nano_cores)),
            memory: usage.and_then(memory),
            network: stats.network.as_ref().map(network),
            process: usage.and_then(process),
            containers: stats.containers.iter().map(|stats| container(stats, root)).collect(),
            io: usage.and_then(io),
        }),
        windows: None,
    }
}

fn attributes(container: &Container) -> v1::ContainerAttributes {
    let metadata = &container.spec.metadata;
    v1::ContainerAttributes {
        id: container.id.to_string(),
        metadata: Some(v1::ContainerMetadata { name: metadata.name.clone(), attempt: metadata.attempt }),
        labels: container.spec.labels.clone(),
        annotations: container.spec.annotations.clone(),
    }
}

fn some(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(usage: &Usage, nano_cores: Option<u64>) -> Option<v1::CpuUsage> {
    let cpu = usage.cpu.as_ref()?;
    Some(v1::CpuUsage {
        timestamp: usage.at,
        usage_core_nano_seconds: some(cpu.usage),
        usage_nano_cores: nano_cores.and_then(some),
        psi: cpu.pressure.as_ref().map(psi),
    })
}

fn memory(usage: &Usage) -> Option<v1::MemoryUsage> {
    let memory = usage.memory.as_ref()?;
    let available = memory.limit.map(|limit| limit.saturating_sub(memory.working_set()));
    Some(v1::MemoryUsage {
        timestamp: usage.at,
        working_set_bytes: some(memory.working_set()),
        available_bytes: available.and_then(some),
        usage_bytes: some(memory.usage),
        rss_bytes: some(memory.rss),
        page_faults: some(memory.faults.all),
        major_page_faults: some(memory.faults.major),
        psi: memory.pressure.as_ref().map(psi),
    })
}

fn swap(usage: &Usage) -> Option<v1::SwapUsage> {
    let swap = usage.swap.as_ref()?;
    Some(v1::SwapUsage {
        timestamp: usage.at,
        swap_available_bytes: swap.limit.and_then(|limit| some(limit.saturating_sub(swap.usage))),
        swap_usage_bytes: some(swap.usage),
    })
}

fn io(usage: &Usage) -> Option<v1::IoUsage> {
    let pressure = usage.io_pressure.as_ref()?;
    Some(v1::IoUsage { timestamp: usage.at, psi: Some(psi(pressure)) })
}

fn process(usage: &Usage) -> Option<v1::ProcessUsage> {
    Some(v1::ProcessUsage { timestamp: usage.at, process_count: some(usage.threads?) })
}

fn psi(pressure: &Pressure) -> v1::PsiStats {
    let data = |stall: &Stall| v1::PsiData {
        total: stall.total,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    v1::PsiStats { full: Some(data(&pressure.full)), some: Some(data(&pressure.some)) }
}

fn writable_layer(layer: WritableLayer, root: &Path) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: layer.at,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: root.to_string_lossy().into_owned() }),
        used_bytes: some(layer.usage.bytes),
        inodes_used: some(layer.usage.inodes),
    }
}

fn network(stats: &NetworkStats) -> v1::NetworkUsage {
    let mut interfaces = stats.interfaces.iter().map(interface);
    v1::NetworkUsage {
        timestamp: stats.at,
        default_interface: interfaces.next(),
        interfaces: interfaces.collect(),
    }
}

fn interface(usage: &InterfaceUsage) -> v1::NetworkInterfaceUsage {
    v1::NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: some(usage.received.bytes),
        rx_errors: some(usage.received.errors),
        tx_bytes: some(usage.transmitted.bytes),
        tx_errors: some(usage.transmitted.errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::cgroup::stats::{Cpu, Faults, Memory, Swap};

    #[test]
    fn what_the_node_does_not_count_is_absent() {
        let usage = Usage { at: 5, ..Usage::default() };
        assert_eq!(
            (cpu(&usage, Some(1)), memory(&usage), swap(&usage), io(&usage)),
            (None, None, None, None)
        );
        assert_eq!(process(&usage), None);
    }

    #[test]
    fn memory_is_available_up_to_the_limit() {
        let counted = Memory {
            usage: 100,
            inactive_file: 30,
            limit: Some(90),
            faults: Faults { all: 7, major: 2 },
            ..Memory::default()
        };
        let of = |memory: &Memory| memory_of(memory.clone());
        let told = of(&counted);
        assert_eq!((told.timestamp, told.working_set_bytes, told.available_bytes), (5, some(70), some(20)));
        assert_eq!((told.page_faults, told.major_page_faults), (some(7), some(2)));
        assert_eq!(of(&Memory { limit: Some(60), ..counted.clone() }).available_bytes, some(0));
        assert_eq!(of(&Memory { limit: None, ..counted }).available_bytes, None);
    }

    fn memory_of(counted: Memory) -> v1::MemoryUsage {
        memory(&Usage { at: 5, memory: Some(counted), ..Usage::default() }).unwrap()
    }

    #[test]
    fn pressure_keeps_its_two_kinds_apart() {
        let pressure =
            Pressure { some: Stall { total: 9, avg10: 1.5, ..Stall::default() }, full: Stall::default() };
        let counted = Cpu { usage: 3, pressure: Some(pressure), ..Cpu::default() };
        let usage = Usage {
            at: 5,
            cpu: Some(counted),
            io_pressure: Some(pressure),
            swap: Some(Swap { usage: 1, limit: None }),
            ..Usage::default()
        };
        let told = cpu(&usage, None).unwrap();
        assert_eq!((told.usage_core_nano_seconds, told.usage_nano_cores), (some(3), None));
        let psi = told.psi.unwrap();
        assert_eq!((psi.some.unwrap().total, psi.full.unwrap().total), (9, 0));
        assert!(io(&usage).unwrap().psi.is_some());
        assert_eq!(swap(&usage).unwrap().swap_available_bytes, None);
    }
}
