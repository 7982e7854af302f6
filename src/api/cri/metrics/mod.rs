//! ListMetricDescriptors and ListPodSandboxMetrics: the metrics that cAdvisor has of containers, under its names, labels and
//! units, in tables by subject. What does not live here: reading the counters.
//!
//! CRI's values are whole numbers: seconds are cut off. What was read for the answer has timestamp 0, as CRI has it.

mod cpu;
mod disk;
mod memory;
mod network;
mod pressure;
mod process;
mod spec;

use berth_proto::cri::v1::{self, MetricType};

use crate::containers::spec::Resources;
use crate::containers::state::Phase;
use crate::containers::{Container, ContainerStats, WritableLayer};
use crate::drivers::cgroup::Mode;
use crate::drivers::cgroup::stats::{Cpu, Memory, Sources, Usage};
use crate::drivers::disk_usage::FileSystem;
use crate::drivers::processes::Processes;
use crate::pods::{Pod, PodStats};

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Labels of every metric, as cAdvisor gives them; `name` is the container's id, `id` its control group.
const BASE: [&str; 6] = ["id", "name", "image", "namespace", "pod", "container"];
/// The value of `container` in metrics of the whole pod.
const POD: &str = "POD";

/// One metric; `F` emits its samples.
struct Row<F> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// After those of [`BASE`].
    labels: &'static [&'static str],
    /// Whether the node counts it.
    counted: fn(&Sources) -> bool,
    emit: F,
}

type ContainerRow = Row<fn(&Subject<'_>, &mut Emit<'_>)>;
type PodRow = Row<fn(&PodStats, &mut Emit<'_>)>;

impl<F: Copy> Row<F> {
    /// Only ever grows.
    const fn counter(name: &'static str, help: &'static str, emit: F) -> Self {
        Self { name, help, kind: MetricType::Counter, labels: &[], counted: |_| true, emit }
    }

    /// Comes and goes.
    const fn gauge(name: &'static str, help: &'static str, emit: F) -> Self {
        Self { name, help, kind: MetricType::Gauge, labels: &[], counted: |_| true, emit }
    }

    /// With labels of its own.
    const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// Only on nodes that count it.
    const fn counted_if(mut self, counted: fn(&Sources) -> bool) -> Self {
        self.counted = counted;
        self
    }

    fn descriptor(&self) -> v1::MetricDescriptor {
        v1::MetricDescriptor {
            name: self.name.into(),
            help: self.help.into(),
            label_keys: BASE.iter().chain(self.labels).map(|key| (*key).into()).collect(),
        }
    }
}

/// A container that runs.
struct Subject<'a> {
    usage: &'a Usage,
    processes: Option<Processes>,
    writable_layer: Option<WritableLayer>,
    /// Limits in force.
    resources: Resources,
    /// Nanoseconds since the epoch.
    started_at: i64,
    /// Where the writable layer is.
    file_system: Option<&'a FileSystem>,
    /// Version of the control group interface.
    mode: Mode,
}

impl Subject<'_> {
    fn cpu(&self) -> Option<&Cpu> {
        self.usage.cpu.as_ref()
    }

    fn memory(&self) -> Option<&Memory> {
        self.usage.memory.as_ref()
    }
}

/// Takes the samples of one row.
struct Emit<'a> {
    name: &'static str,
    kind: MetricType,
    base: &'a [String; BASE.len()],
    samples: &'a mut Vec<v1::Metric>,
}

impl Emit<'_> {
    /// The one sample; None = not counted.
    fn value(&mut self, value: Option<u64>) {
        self.labelled(&[], value);
    }

    /// One of several.
    fn labelled(&mut self, labels: &[&str], value: Option<u64>) {
        self.taken_at(0, labels, value);
    }

    /// One that was taken before it was asked for; `at` in nanoseconds since the epoch.
    fn taken_at(&mut self, at: i64, labels: &[&str], value: Option<u64>) {
        let Some(value) = value else { return };
        let labels = labels.iter().map(|label| (*label).to_string());
        self.samples.push(v1::Metric {
            name: self.name.into(),
            timestamp: at,
            metric_type: self.kind.into(),
            label_values: self.base.iter().cloned().chain(labels).collect(),
            value: Some(v1::UInt64Value { value }),
        });
    }
}

/// All rows of containers.
fn rows() -> impl Iterator<Item = &'static ContainerRow> {
    let tables = [cpu::ROWS, memory::ROWS, disk::ROWS, process::ROWS, spec::ROWS, pressure::ROWS];
    tables.into_iter().flatten()
}

/// What this node counts.
pub(super) fn descriptors(sources: &Sources) -> Vec<v1::MetricDescriptor> {
    let of_containers = rows().filter(|row| (row.counted)(sources)).map(Row::descriptor);
    of_containers.chain(network::ROWS.iter().map(Row::descriptor)).collect()
}

/// All samples of one pod and its containers.
pub(super) fn pod(stats: &PodStats, file_system: Option<&FileSystem>, mode: Mode) -> v1::PodSandboxMetrics {
    let (base, mut metrics) = (pod_labels(&stats.pod), Vec::with_capacity(network::ROWS.len()));
    for row in network::ROWS {
        (row.emit)(stats, &mut Emit { name: row.name, kind: row.kind, base: &base, samples: &mut metrics });
    }
    let of = |stats| container(stats, file_system, mode);
    v1::PodSandboxMetrics {
        pod_sandbox_id: stats.pod.id().to_string(),
        metrics,
        container_metrics: stats.containers.iter().filter_map(of).collect(),
    }
}

fn container(
    stats: &ContainerStats,
    file_system: Option<&FileSystem>,
    mode: Mode,
) -> Option<v1::ContainerMetrics> {
    let subject = Subject {
        usage: stats.usage.as_ref()?,
        processes: stats.processes,
        writable_layer: stats.writable_layer,
        resources: stats.container.resources(),
        started_at: match stats.container.phase() {
            Phase::Running(run) => run.started_at,
            // It has ended since its counters were read.
            Phase::Exited(exited) => exited.started_at,
            Phase::Created => return None,
        },
        file_system,
        mode,
    };
    let (base, mut metrics) = (container_labels(&stats.container), Vec::with_capacity(64));
    for row in rows() {
        (row.emit)(
            &subject,
            &mut Emit { name: row.name, kind: row.kind, base: &base, samples: &mut metrics },
        );
    }
    Some(v1::ContainerMetrics { container_id: stats.container.id.to_string(), metrics })
}

fn container_labels(container: &Container) -> [String; BASE.len()] {
    let (spec, pod) = (&container.spec, &container.sandbox.spec.metadata);
    let image = match spec.user_specified_image.as_str() {
        "" => &container.image.reference,
        asked => asked,
    };
    [container.cgroup.path(), container.id.as_str(), image, &pod.namespace, &pod.name, &spec.metadata.name]
        .map(String::from)
}

fn pod_labels(pod: &Pod) -> [String; BASE.len()] {
    let metadata = &pod.sandbox.spec.metadata;
    [pod.sandbox.cgroup.path(), pod.id().as_str(), "", &metadata.namespace, &metadata.name, POD]
        .map(String::from)
}

/// Whole seconds since the epoch.
fn seconds(moment: i64) -> u64 {
    u64::try_from(moment).unwrap_or(0) / SECOND
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::drivers::cgroup::stats::{DeviceIo, HugePages, Pressure, Throttling};
    use crate::drivers::disk_usage::DiskUsage;

    const ALL: Sources = Sources { pressure: true, huge_pages: true };

    /// What critest expects of a runtime (cri-tools, pkg/validate/pod.go).
    const EXPECTED: &str = "container_blkio_device_usage_total
        container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total
        container_cpu_cfs_throttled_seconds_total container_cpu_system_seconds_total
        container_cpu_usage_seconds_total container_cpu_user_seconds_total
        container_file_descriptors container_fs_inodes_free container_fs_inodes_total container_fs_limit_bytes
        container_fs_reads_bytes_total container_fs_reads_total container_fs_usage_bytes
        container_fs_writes_bytes_total container_fs_writes_total
        container_hugetlb_max_usage_bytes container_hugetlb_usage_bytes container_last_seen
        container_memory_cache container_memory_failcnt container_memory_failures_total
        container_memory_kernel_usage container_memory_mapped_file container_memory_max_usage_bytes
        container_memory_rss container_memory_swap container_memory_usage_bytes container_memory_working_set_bytes
        container_network_receive_bytes_total container_network_receive_errors_total
        container_network_receive_packets_dropped_total container_network_receive_packets_total
        container_network_transmit_bytes_total container_network_transmit_errors_total
        container_network_transmit_packets_dropped_total container_network_transmit_packets_total
        container_oom_events_total
        container_pressure_cpu_stalled_seconds_total container_pressure_cpu_waiting_seconds_total
        container_pressure_io_stalled_seconds_total container_pressure_io_waiting_seconds_total
        container_pressure_memory_stalled_seconds_total container_pressure_memory_waiting_seconds_total
        container_processes container_sockets container_spec_cpu_period container_spec_cpu_quota
        container_spec_cpu_shares container_spec_memory_limit_bytes container_spec_memory_reservation_limit_bytes
        container_spec_memory_swap_limit_bytes container_start_time_seconds
        container_threads container_threads_max container_ulimits_soft";

    fn names(sources: &Sources) -> Vec<String> {
        descriptors(sources).into_iter().map(|descriptor| descriptor.name).collect()
    }

    #[test]
    fn a_node_that_counts_everything_declares_what_critest_expects() {
        let expected: BTreeSet<String> = EXPECTED.split_whitespace().map(String::from).collect();
        let declared = names(&ALL);
        assert_eq!(declared.len(), 56, "each is declared once");
        assert_eq!(declared.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn what_a_node_does_not_count_is_not_declared() {
        let left = |sources: Sources, word: &str| names(&sources).iter().filter(|n| n.contains(word)).count();
        assert_eq!(left(Sources { pressure: false, ..ALL }, "pressure"), 0);
        assert_eq!(left(Sources { huge_pages: false, ..ALL }, "hugetlb"), 0);
    }

    #[test]
    fn every_descriptor_has_help_and_the_labels_of_all() {
        for descriptor in descriptors(&ALL) {
            assert!(!descriptor.help.is_empty(), "{descriptor:?}");
            assert_eq!(descriptor.label_keys[..BASE.len()], BASE, "{descriptor:?}");
        }
    }

    fn full_usage() -> Usage {
        let pressure = Some(Pressure::default());
        let cpu = Cpu {
            user: Some(1),
            system: Some(1),
            throttling: Some(Throttling::default()),
            pressure,
            ..Cpu::default()
        };
        let memory = Memory {
            kernel: Some(1),
            peak: Some(1),
            limit_hits: Some(1),
            oom_kills: Some(1),
            reservation: Some(1),
            pressure,
            ..Memory::default()
        };
        Usage {
            cpu: Some(cpu),
            memory: Some(memory),
            io_pressure: pressure,
            devices: vec![DeviceIo::default()],
            threads: Some(1),
            huge_pages: vec![HugePages { peak: Some(1), ..HugePages::default() }],
            ..Usage::default()
        }
    }

    #[test]
    fn seconds_are_whole_and_limits_are_those_in_force() {
        let cpu = Cpu { usage: 2_999_999_999, ..Cpu::default() };
        let usage = Usage { cpu: Some(cpu), memory: Some(Memory::default()), ..Usage::default() };
        let resources = Resources {
            memory_limit: Some(64 << 20),
            memory_swap_limit: Some(96 << 20),
            cpu_quota: Some(-1),
            ..Resources::default()
        };
        let subject = |mode| Subject {
            usage: &usage,
            processes: None,
            writable_layer: None,
            resources: resources.clone(),
            started_at: 5_900_000_000,
            file_system: None,
            mode,
        };
        let value = |name: &str, subject: &Subject<'_>| {
            let (base, mut samples) = (BASE.map(String::from), Vec::new());
            let row = rows().find(|row| row.name == name).unwrap();
            (row.emit)(
                subject,
                &mut Emit { name: row.name, kind: row.kind, base: &base, samples: &mut samples },
            );
            samples.pop().map(|sample| sample.value.unwrap().value)
        };
        let v2 = subject(Mode::V2);
        assert_eq!(value("container_cpu_usage_seconds_total", &v2), Some(2));
        assert_eq!(value("container_start_time_seconds", &v2), Some(5));
        assert_eq!(value("container_spec_cpu_quota", &v2), None);
        assert_eq!(value("container_spec_cpu_shares", &v2), Some(1024));
        assert_eq!(value("container_spec_memory_limit_bytes", &v2), Some(64 << 20));
        assert_eq!(value("container_spec_memory_swap_limit_bytes", &v2), Some(32 << 20));
        assert_eq!(value("container_spec_memory_swap_limit_bytes", &subject(Mode::V1)), Some(96 << 20));
        assert_eq!(value("container_cpu_user_seconds_total", &v2), None, "not counted");
    }

    /// Every row of a container whose counters all say something emits what its descriptor declares.
    #[test]
    fn every_sample_has_a_value_for_each_label() {
        let base = BASE.map(String::from);
        let emitted = |row: &ContainerRow, subject: &Subject<'_>| {
            let mut samples = Vec::new();
            (row.emit)(
                subject,
                &mut Emit { name: row.name, kind: row.kind, base: &base, samples: &mut samples },
            );
            samples
        };
        let (usage, file_system) = (full_usage(), FileSystem::default());
        let subject = Subject {
            usage: &usage,
            processes: Some(Processes { files_max: Some(1024), ..Processes::default() }),
            writable_layer: Some(WritableLayer { at: 1, usage: DiskUsage::default() }),
            resources: Resources { cpu_quota: Some(20_000), ..Resources::default() },
            started_at: 1,
            file_system: Some(&file_system),
            mode: Mode::V2,
        };
        for row in rows() {
            let samples = emitted(row, &subject);
            assert!(!samples.is_empty(), "{}", row.name);
            for sample in samples {
                assert_eq!(sample.label_values.len(), row.descriptor().label_keys.len(), "{}", row.name);
            }
        }
    }
}
