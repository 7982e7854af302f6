//! The container's limits in force.

use super::{ContainerRow as Row, Subject};
use crate::drivers::cgroup::Mode;

/// What the kernel has where nothing else was asked for.
const SHARES: u64 = 1024;
const PERIOD: u64 = 100_000;

pub(super) const ROWS: &[Row] = &[
    Row::gauge("container_spec_cpu_shares", "Weight of the container's processor time.", |subject, emit| {
        emit.value(Some(subject.resources.cpu_shares.unwrap_or(SHARES)));
    }),
    Row::gauge("container_spec_cpu_period", "Period of the CPU quota, in microseconds.", |subject, emit| {
        emit.value(Some(subject.resources.cpu_period.unwrap_or(PERIOD)));
    }),
    Row::gauge(
        "container_spec_cpu_quota",
        "Microseconds of processor time in each period; no sample without a quota.",
        |subject, emit| {
            emit.value(subject.resources.cpu_quota.and_then(positive));
        },
    ),
    Row::gauge(
        "container_spec_memory_limit_bytes",
        "Limit of the container's memory; 0 = none.",
        |subject, emit| emit.value(Some(memory_limit(subject))),
    ),
    Row::gauge(
        "container_spec_memory_swap_limit_bytes",
        "Limit of the container's swap, with cgroup v1 of memory and swap together; 0 = none.",
        |subject, emit| emit.value(Some(swap_limit(subject))),
    ),
    Row::gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Bytes of memory that the kernel spares while it can; 0 = none.",
        |subject, emit| emit.value(subject.memory().and_then(|memory| memory.reservation)),
    ),
];

fn positive(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn memory_limit(subject: &Subject<'_>) -> u64 {
    subject.resources.memory_limit.and_then(positive).unwrap_or(0)
}

fn swap_limit(subject: &Subject<'_>) -> u64 {
    let both = subject.resources.memory_swap_limit.and_then(positive).unwrap_or(0);
    match subject.mode {
        Mode::V1 => both,
        Mode::V2 => both.saturating_sub(memory_limit(subject)),
    }
}
