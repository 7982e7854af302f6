//! Counters of version 2 (kernel documentation, cgroup-v2.rst). One directory has them all.

use std::path::Path;

use super::super::hierarchy::below;
use super::text::{field, fields, io_stat, pressure};
use super::{
    Cpu, Detail, Dir, HugePages, Memory, Pressure, Sources, Swap, Throttling, Usage, huge_page_sizes,
};

const MICRO: u64 = 1000;

pub(super) fn usage(root: &Path, path: &str, detail: Detail) -> Usage {
    let Some(dir) = Dir::open(&below(root, path)) else { return Usage::default() };
    let buffer = &mut String::with_capacity(4096);
    let cpu = dir.text("cpu.stat", buffer).and_then(cpu);
    let memory = memory(&dir, detail, buffer);
    let mut usage = Usage {
        cpu: cpu.map(|cpu| Cpu { pressure: stalls(&dir, "cpu.pressure", buffer), ..cpu }),
        memory,
        swap: dir
            .number("memory.swap.current")
            .map(|usage| Swap { usage, limit: dir.number("memory.swap.max") }),
        io_pressure: stalls(&dir, "io.pressure", buffer),
        threads: dir.number("pids.current"),
        ..Usage::default()
    };
    if detail == Detail::Metrics {
        usage.threads_max = dir.number("pids.max");
        usage.devices = dir.text("io.stat", buffer).map(io_stat).unwrap_or_default();
        usage.huge_pages = huge_pages(&dir);
    }
    usage
}

/// None where the kernel does not count pressure: the file is not there, or reading it is refused.
fn stalls(dir: &Dir, file: &str, buffer: &mut String) -> Option<Pressure> {
    pressure(dir.text(file, buffer)?)
}

fn cpu(text: &str) -> Option<Cpu> {
    let nanoseconds = |name| field(text, name).map(|micro| micro.saturating_mul(MICRO));
    let throttling = field(text, "nr_periods").map(|periods| Throttling {
        periods,
        throttled: field(text, "nr_throttled").unwrap_or(0),
        time: nanoseconds("throttled_usec").unwrap_or(0),
    });
    Some(Cpu {
        usage: nanoseconds("usage_usec")?,
        user: nanoseconds("user_usec"),
        system: nanoseconds("system_usec"),
        throttling,
        pressure: None,
    })
}

fn memory(dir: &Dir, detail: Detail, buffer: &mut String) -> Option<Memory> {
    let usage = dir.number("memory.current")?;
    let mut memory = dir.text("memory.stat", buffer).map(memory_stat).unwrap_or_default();
    memory.usage = usage;
    memory.limit = dir.number("memory.max");
    memory.pressure = stalls(dir, "memory.pressure", buffer);
    if detail == Detail::Metrics {
        memory.peak = dir.number("memory.peak");
        memory.reservation = dir.number("memory.min");
        if let Some(events) = dir.text("memory.events", buffer) {
            memory.limit_hits = field(events, "max");
            memory.oom_kills = field(events, "oom_kill");
        }
    }
    Some(memory)
}

fn memory_stat(text: &str) -> Memory {
    let mut memory = Memory::default();
    // Before Linux 5.18 the sum is not there, its parts are.
    let (mut kernel, mut parts) = (None, 0_u64);
    for (name, value) in fields(text) {
        match name {
            "anon" => memory.rss = value,
            "file" => memory.cache = value,
            "file_mapped" => memory.mapped_file = value,
            "inactive_file" => memory.inactive_file = value,
            "pgfault" => memory.faults.all = value,
            "pgmajfault" => memory.faults.major = value,
            "kernel" => kernel = Some(value),
            "kernel_stack" | "pagetables" | "percpu" | "slab" => parts = parts.saturating_add(value),
            _ => {}
        }
    }
    memory.kernel = Some(kernel.unwrap_or(parts));
    memory
}

fn huge_pages(dir: &Dir) -> Vec<HugePages> {
    let pages = |size: &String| {
        // The kernel keeps no peak here.
        let usage = dir.number(&format!("hugetlb.{size}.current"))?;
        Some(HugePages { size: size.clone(), usage, peak: None })
    };
    huge_page_sizes().iter().filter_map(pages).collect()
}

pub(super) fn sources(root: &Path) -> Sources {
    let buffer = &mut String::new();
    let Some(dir) = Dir::open(root) else { return Sources::default() };
    let pressure = stalls(&dir, "cpu.pressure", buffer).is_some();
    let controllers = dir.text("cgroup.controllers", buffer).unwrap_or_default();
    let has = |name: &str| controllers.split_ascii_whitespace().any(|controller| controller == name);
    Sources { pressure, huge_pages: has("hugetlb") && !huge_page_sizes().is_empty() }
}

#[cfg(test)]
mod tests {
    use super::super::Faults;
    use super::*;

    const MEMORY_STAT: &str = "anon 1200128\nfile 20480000\nkernel 700416\nkernel_stack 49152\npagetables 98304\n\
        percpu 1152\nsock 0\nshmem 4096\nfile_mapped 4915200\nfile_dirty 0\ninactive_anon 1196032\nactive_anon 8192\n\
        inactive_file 15000000\nactive_file 5475904\nslab 551936\npgfault 7331\npgmajfault 42\n";

    #[test]
    fn memory_is_counted_by_kind() {
        let memory = memory_stat(MEMORY_STAT);
        assert_eq!((memory.rss, memory.cache, memory.mapped_file), (1_200_128, 20_480_000, 4_915_200));
        assert_eq!(memory.faults, Faults { all: 7331, major: 42 });
        assert_eq!(memory.kernel, Some(700_416));
        let memory = Memory { usage: 22_380_544, ..memory };
        assert_eq!(memory.working_set(), 7_380_544);
        assert_eq!(Memory { usage: 1, ..memory }.working_set(), 0);
    }

    #[test]
    fn old_kernels_tell_the_parts_of_kernel_memory_only() {
        let text = MEMORY_STAT.replace("kernel 700416\n", "");
        assert_eq!(memory_stat(&text).kernel, Some(49_152 + 98_304 + 1152 + 551_936));
    }

    #[test]
    fn processor_time_is_in_nanoseconds_and_a_quota_need_not_be() {
        let with = "usage_usec 5012345\nuser_usec 4000000\nsystem_usec 1012345\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                    nr_periods 120\nnr_throttled 30\nthrottled_usec 1500000\nnr_bursts 0\nburst_usec 0\n";
        let read = cpu(with).unwrap();
        assert_eq!(
            (read.usage, read.user, read.system),
            (5_012_345_000, Some(4_000_000_000), Some(1_012_345_000))
        );
        let throttling = Throttling { periods: 120, throttled: 30, time: 1_500_000_000 };
        assert_eq!(read.throttling, Some(throttling));
        let without = with.split("nr_periods").next().unwrap();
        assert_eq!(cpu(without).unwrap().throttling, None);
        assert_eq!(cpu(""), None);
    }
}
