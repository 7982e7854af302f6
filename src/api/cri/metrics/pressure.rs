//! Time lost by waiting: for `waiting` it is enough that one process waits, for `stalled` all must.

use super::{ContainerRow as Row, Emit, SECOND, Subject};
use crate::drivers::cgroup::stats::Pressure;

pub(super) const ROWS: &[Row] = &[
    row(
        "container_pressure_cpu_waiting_seconds_total",
        "Seconds in which some process of the container waited for a processor.",
        |subject, emit| emit.value(cpu(subject).map(waiting)),
    ),
    row(
        "container_pressure_cpu_stalled_seconds_total",
        "Seconds in which all processes of the container waited for a processor.",
        |subject, emit| emit.value(cpu(subject).map(stalled)),
    ),
    row(
        "container_pressure_memory_waiting_seconds_total",
        "Seconds in which some process of the container waited for memory.",
        |subject, emit| emit.value(memory(subject).map(waiting)),
    ),
    row(
        "container_pressure_memory_stalled_seconds_total",
        "Seconds in which all processes of the container waited for memory.",
        |subject, emit| emit.value(memory(subject).map(stalled)),
    ),
    row(
        "container_pressure_io_waiting_seconds_total",
        "Seconds in which some process of the container waited for a device.",
        |subject, emit| emit.value(subject.usage.io_pressure.as_ref().map(waiting)),
    ),
    row(
        "container_pressure_io_stalled_seconds_total",
        "Seconds in which all processes of the container waited for a device.",
        |subject, emit| emit.value(subject.usage.io_pressure.as_ref().map(stalled)),
    ),
];

type Emitted = fn(&Subject<'_>, &mut Emit<'_>);

const fn row(name: &'static str, help: &'static str, emit: Emitted) -> Row {
    Row::counter(name, help, emit).counted_if(|sources| sources.pressure)
}

fn cpu<'a>(subject: &'a Subject<'_>) -> Option<&'a Pressure> {
    subject.cpu()?.pressure.as_ref()
}

fn memory<'a>(subject: &'a Subject<'_>) -> Option<&'a Pressure> {
    subject.memory()?.pressure.as_ref()
}

fn waiting(pressure: &Pressure) -> u64 {
    pressure.some.total / SECOND
}

fn stalled(pressure: &Pressure) -> u64 {
    pressure.full.total / SECOND
}
