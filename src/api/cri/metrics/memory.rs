//! Memory, swap and huge pages.

use super::ContainerRow as Row;

pub(super) const ROWS: &[Row] = &[
    Row::gauge(
        "container_memory_usage_bytes",
        "Bytes of memory charged to the container, page cache included.",
        |subject, emit| emit.value(subject.memory().map(|memory| memory.usage)),
    ),
    Row::gauge(
        "container_memory_working_set_bytes",
        "Bytes of memory in use, without file pages that were not used lately.",
        |subject, emit| emit.value(subject.memory().map(|memory| memory.working_set())),
    ),
    Row::gauge("container_memory_rss", "Bytes of anonymous memory.", |subject, emit| {
        emit.value(subject.memory().map(|memory| memory.rss));
    }),
    Row::gauge("container_memory_cache", "Bytes of page cache.", |subject, emit| {
        emit.value(subject.memory().map(|memory| memory.cache));
    }),
    Row::gauge("container_memory_mapped_file", "Bytes of files mapped into memory.", |subject, emit| {
        emit.value(subject.memory().map(|memory| memory.mapped_file));
    }),
    Row::gauge(
        "container_memory_kernel_usage",
        "Bytes of memory that the kernel itself needs for the container.",
        |subject, emit| emit.value(subject.memory().and_then(|memory| memory.kernel)),
    ),
    Row::gauge("container_memory_swap", "Bytes of swap in use.", |subject, emit| {
        // A kernel without swap has swapped nothing out.
        emit.value(subject.memory().map(|_| subject.usage.swap.map_or(0, |swap| swap.usage)));
    }),
    Row::gauge(
        "container_memory_max_usage_bytes",
        "The most bytes of memory that were ever charged to the container.",
        |subject, emit| emit.value(subject.memory().and_then(|memory| memory.peak)),
    ),
    Row::counter(
        "container_memory_failcnt",
        "How often the container's memory has reached its limit.",
        |subject, emit| emit.value(subject.memory().and_then(|memory| memory.limit_hits)),
    ),
    Row::counter(
        "container_memory_failures_total",
        "Page faults: of the container alone, and with control groups that it made itself.",
        |subject, emit| {
            let Some(memory) = subject.memory() else { return };
            let (all, own) = (memory.faults, memory.own_faults.unwrap_or(memory.faults));
            emit.labelled(&["pgfault", "container"], Some(own.all));
            emit.labelled(&["pgmajfault", "container"], Some(own.major));
            emit.labelled(&["pgfault", "hierarchy"], Some(all.all));
            emit.labelled(&["pgmajfault", "hierarchy"], Some(all.major));
        },
    )
    .by(&["failure_type", "scope"]),
    Row::counter(
        "container_oom_events_total",
        "Processes of the container that the kernel has killed for memory.",
        |subject, emit| emit.value(subject.memory().and_then(|memory| memory.oom_kills)),
    ),
    Row::gauge("container_hugetlb_usage_bytes", "Bytes of huge pages in use.", |subject, emit| {
        for pages in &subject.usage.huge_pages {
            emit.labelled(&[&pages.size], Some(pages.usage));
        }
    })
    .by(&["pagesize"])
    .counted_if(|sources| sources.huge_pages),
    Row::gauge(
        "container_hugetlb_max_usage_bytes",
        "The most bytes of huge pages that were seen in use.",
        |subject, emit| {
            for pages in &subject.usage.huge_pages {
                emit.labelled(&[&pages.size], pages.peak);
            }
        },
    )
    .by(&["pagesize"])
    .counted_if(|sources| sources.huge_pages),
];
