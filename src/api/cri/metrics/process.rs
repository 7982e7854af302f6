//! Processes, threads, and what they hold open.

use super::{ContainerRow as Row, seconds};
use crate::clock;

pub(super) const ROWS: &[Row] = &[
    Row::gauge(
        "container_last_seen",
        "When the container was last seen: seconds since the epoch.",
        |_, emit| {
            emit.value(Some(seconds(clock::now())));
        },
    ),
    Row::gauge(
        "container_start_time_seconds",
        "When the container was started: seconds since the epoch.",
        |subject, emit| emit.value(Some(seconds(subject.started_at))),
    ),
    Row::gauge("container_processes", "Processes of the container.", |subject, emit| {
        emit.value(subject.processes.map(|processes| processes.count));
    }),
    Row::gauge("container_threads", "Threads of the container.", |subject, emit| {
        emit.value(subject.usage.threads);
    }),
    Row::gauge(
        "container_threads_max",
        "The most threads that the container may have; 0 = any number.",
        |subject, emit| emit.value(subject.usage.threads.map(|_| subject.usage.threads_max.unwrap_or(0))),
    ),
    Row::gauge("container_file_descriptors", "Open file descriptors of the container.", |subject, emit| {
        emit.value(subject.processes.map(|processes| processes.files));
    }),
    Row::gauge("container_sockets", "Open sockets of the container.", |subject, emit| {
        emit.value(subject.processes.map(|processes| processes.sockets));
    }),
    Row::gauge("container_ulimits_soft", "Soft limits of the container's first process.", |subject, emit| {
        let limit = subject.processes.and_then(|processes| processes.files_max);
        emit.labelled(&["max_open_files"], limit);
    })
    .by(&["ulimit"]),
];
