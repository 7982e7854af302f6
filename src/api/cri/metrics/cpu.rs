//! Processor time.

use super::{ContainerRow as Row, SECOND};

pub(super) const ROWS: &[Row] = &[
    // cAdvisor, too, counts no processor by itself when the kubelet runs it.
    Row::counter(
        "container_cpu_usage_seconds_total",
        "Seconds of processor time used, on all processors together.",
        |subject, emit| emit.labelled(&["total"], subject.cpu().map(|cpu| cpu.usage / SECOND)),
    )
    .by(&["cpu"]),
    Row::counter(
        "container_cpu_user_seconds_total",
        "Seconds of processor time used in user mode.",
        |subject, emit| emit.value(subject.cpu().and_then(|cpu| Some(cpu.user? / SECOND))),
    ),
    Row::counter(
        "container_cpu_system_seconds_total",
        "Seconds of processor time used in the kernel.",
        |subject, emit| emit.value(subject.cpu().and_then(|cpu| Some(cpu.system? / SECOND))),
    ),
    Row::counter(
        "container_cpu_cfs_periods_total",
        "Periods of the CPU quota in which something ran.",
        |subject, emit| emit.value(subject.cpu().and_then(|cpu| Some(cpu.throttling?.periods))),
    ),
    Row::counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the CPU quota was used up.",
        |subject, emit| emit.value(subject.cpu().and_then(|cpu| Some(cpu.throttling?.throttled))),
    ),
    Row::counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Seconds that the CPU quota has held processes back.",
        |subject, emit| emit.value(subject.cpu().and_then(|cpu| Some(cpu.throttling?.time / SECOND))),
    ),
];
