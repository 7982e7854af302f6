//! Counters of version 1 (kernel documentation, cgroup-v1/): a directory for each controller. It counts no pressure.

use super::super::hierarchy::Hierarchies;
use super::text::{blkio, field, fields};
use super::{
    Cpu, Detail, DeviceIo, Dir, Faults, HugePages, Memory, Sources, Swap, Throttling, Usage, huge_page_sizes,
};

/// What the kernel shows where there is no limit, less what rounding to pages may take.
pub(super) const NO_LIMIT: u64 = 1 << 62;
/// USER_HZ, 100 wherever Linux runs on a common processor: a tick is 10 ms.
const TICK: u64 = 10_000_000;

/// The files of accounting, bfq's first: where it schedules the devices, the others stay empty.
const BLKIO: [(&str, &str); 2] = [
    ("blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive"),
    ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
];

pub(super) fn usage(hierarchies: &Hierarchies, path: &str, detail: Detail) -> Usage {
    let open = |controller: &str| Dir::open(&hierarchies.dir(controller, path)?);
    let (cpuacct, memory, pids) = (open("cpuacct"), open("memory"), open("pids"));
    let buffer = &mut String::with_capacity(4096);
    let mut usage = Usage {
        cpu: cpuacct.and_then(|dir| cpu(&dir, detail, buffer)),
        threads: pids.as_ref().and_then(|dir| dir.number("pids.current")),
        ..Usage::default()
    };
    if let Some(dir) = memory {
        (usage.memory, usage.swap) = read_memory(&dir, detail, buffer);
    }
    if detail == Detail::Metrics {
        if let Some(cpu) = &mut usage.cpu {
            cpu.throttling = open("cpu").and_then(|dir| throttling(dir.text("cpu.stat", buffer)?));
        }
        usage.threads_max = pids.and_then(|dir| dir.number("pids.max"));
        usage.devices = open("blkio").map(|dir| devices(&dir)).unwrap_or_default();
        usage.huge_pages = open("hugetlb").map(|dir| huge_pages(&dir)).unwrap_or_default();
    }
    usage
}

fn cpu(dir: &Dir, detail: Detail, buffer: &mut String) -> Option<Cpu> {
    let usage = dir.number("cpuacct.usage")?;
    let mut cpu = Cpu { usage, ..Cpu::default() };
    if detail == Detail::Metrics {
        cpu.user = dir.number("cpuacct.usage_user");
        cpu.system = dir.number("cpuacct.usage_sys");
        // Linux before 4.7 counts in ticks only.
        if cpu.user.is_none()
            && let Some(ticks) = dir.text("cpuacct.stat", buffer)
        {
            let nanoseconds = |name| field(ticks, name).map(|ticks| ticks.saturating_mul(TICK));
            (cpu.user, cpu.system) = (nanoseconds("user"), nanoseconds("system"));
        }
    }
    Some(cpu)
}

fn throttling(text: &str) -> Option<Throttling> {
    Some(Throttling {
        periods: field(text, "nr_periods")?,
        throttled: field(text, "nr_throttled")?,
        time: field(text, "throttled_time")?,
    })
}

fn read_memory(dir: &Dir, detail: Detail, buffer: &mut String) -> (Option<Memory>, Option<Swap>) {
    let Some(usage) = dir.number("memory.usage_in_bytes") else { return (None, None) };
    let limit = |file: &str| dir.number(file).filter(|limit| *limit < NO_LIMIT);
    let (mut memory, swapped) = dir.text("memory.stat", buffer).map(memory_stat).unwrap_or_default();
    memory.usage = usage;
    memory.limit = limit("memory.limit_in_bytes");
    // Without swap accounting there is no such file, and nothing is known of swap.
    let both = limit("memory.memsw.limit_in_bytes");
    let swap = (both.is_some() || dir.has("memory.memsw.limit_in_bytes")).then(|| Swap {
        usage: swapped,
        limit: both.zip(memory.limit).map(|(both, memory)| both.saturating_sub(memory)),
    });
    if detail == Detail::Metrics {
        memory.peak = dir.number("memory.max_usage_in_bytes");
        memory.limit_hits = dir.number("memory.failcnt");
        memory.kernel = dir.number("memory.kmem.usage_in_bytes");
        memory.reservation = Some(limit("memory.soft_limit_in_bytes").unwrap_or(0));
        memory.oom_kills = dir.text("memory.oom_control", buffer).and_then(|text| field(text, "oom_kill"));
    }
    (Some(memory), swap)
}

/// memory.stat, and of it what is swapped out. `total_` are the numbers with all cgroups below.
fn memory_stat(text: &str) -> (Memory, u64) {
    let (mut memory, mut own, mut swapped) = (Memory::default(), Faults::default(), 0);
    for (name, value) in fields(text) {
        match name {
            "pgfault" => own.all = value,
            "pgmajfault" => own.major = value,
            "total_cache" => memory.cache = value,
            "total_rss" => memory.rss = value,
            "total_mapped_file" => memory.mapped_file = value,
            "total_inactive_file" => memory.inactive_file = value,
            "total_pgfault" => memory.faults.all = value,
            "total_pgmajfault" => memory.faults.major = value,
            "total_swap" => swapped = value,
            _ => {}
        }
    }
    memory.own_faults = Some(own);
    (memory, swapped)
}

fn devices(dir: &Dir) -> Vec<DeviceIo> {
    let (mut bytes, mut requests) = (String::new(), String::new());
    let read = |(of_bytes, of_requests): (&str, &str)| {
        let (bytes, requests) = (dir.text(of_bytes, &mut bytes)?, dir.text(of_requests, &mut requests)?);
        Some(blkio(bytes, requests)).filter(|devices| !devices.is_empty())
    };
    BLKIO.into_iter().find_map(read).unwrap_or_default()
}

fn huge_pages(dir: &Dir) -> Vec<HugePages> {
    let pages = |size: &String| {
        let usage = dir.number(&format!("hugetlb.{size}.usage_in_bytes"))?;
        let peak = dir.number(&format!("hugetlb.{size}.max_usage_in_bytes"));
        Some(HugePages { size: size.clone(), usage, peak })
    };
    huge_page_sizes().iter().filter_map(pages).collect()
}

pub(super) fn sources(hierarchies: &Hierarchies) -> Sources {
    let has = |controller: &str| hierarchies.dir(controller, "").is_some();
    Sources { pressure: false, huge_pages: has("hugetlb") && !huge_page_sizes().is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY_STAT: &str = "cache 11706368\nrss 131072\nmapped_file 7495680\nswap 0\npgfault 500\npgmajfault 1\n\
        inactive_file 45056\nhierarchical_memory_limit 67108864\nhierarchical_memsw_limit 67108864\n\
        total_cache 21000192\ntotal_rss 260096\ntotal_rss_huge 0\ntotal_mapped_file 8192\ntotal_swap 4096\n\
        total_pgfault 1700\ntotal_pgmajfault 3\ntotal_inactive_file 20000000\ntotal_active_file 1000192\n";

    #[test]
    fn memory_counts_what_lies_below_too() {
        let (memory, swapped) = memory_stat(MEMORY_STAT);
        assert_eq!((memory.rss, memory.cache, memory.mapped_file), (260_096, 21_000_192, 8192));
        assert_eq!(memory.faults, Faults { all: 1700, major: 3 });
        assert_eq!(memory.own_faults, Some(Faults { all: 500, major: 1 }));
        assert_eq!(swapped, 4096);
        assert_eq!(Memory { usage: 21_500_000, ..memory }.working_set(), 1_500_000);
    }

    #[test]
    fn throttling_is_in_nanoseconds() {
        let text = "nr_periods 9\nnr_throttled 4\nthrottled_time 123456789\nnr_bursts 0\nburst_time 0\n";
        assert_eq!(throttling(text), Some(Throttling { periods: 9, throttled: 4, time: 123_456_789 }));
        assert_eq!(throttling(""), None);
    }
}
