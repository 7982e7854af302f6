//! What the kernel has counted for a cgroup: processor, memory, swap, block devices, huge pages, pressure.
//! What lives here: the numbers and where they come from, `v2` and `v1`. What does not: rates, and what CRI calls them.
//!
//! A counter that the node does not have (no such controller, an older kernel, a file that can't be read) is None, and
//! never an error nor a zero.

mod text;
mod v1;
mod v2;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Mode as FileMode, OFlags};

use super::hierarchy::Hierarchies;
use super::{Cgroups, Mode, Place};
use crate::clock;
use crate::drivers::block::device_name;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What CRI's stats want: few files.
    Stats,
    /// Also what CRI's metrics want.
    Metrics,
}

/// What the kernel has counted for one cgroup and all below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// When it was read: nanoseconds since the epoch.
    pub at: i64,
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Memory that was swapped out.
    pub swap: Option<Swap>,
    /// Waiting for block devices.
    pub io_pressure: Option<Pressure>,
    /// By block device; only with [`Detail::Metrics`]. Devices that were never used are not listed.
    pub devices: Vec<DeviceIo>,
    /// Threads now, those of the pod's shim included in a pod's.
    pub threads: Option<u64>,
    /// The most there may be; None also where there is no limit; only with [`Detail::Metrics`].
    pub threads_max: Option<u64>,
    /// By page size; only with [`Detail::Metrics`].
    pub huge_pages: Vec<HugePages>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// All of it.
    pub usage: u64,
    /// In user mode.
    pub user: Option<u64>,
    /// In the kernel.
    pub system: Option<u64>,
    /// What the quota did.
    pub throttling: Option<Throttling>,
    /// Waiting for a processor.
    pub pressure: Option<Pressure>,
}

/// What a CPU quota did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods that had runnable processes.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled: u64,
    /// Nanoseconds that processes were held back.
    pub time: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// All that is charged, page cache included.
    pub usage: u64,
    /// File pages that the kernel would reclaim first.
    pub inactive_file: u64,
    /// Anonymous pages.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Mapped files.
    pub mapped_file: u64,
    /// What the kernel itself needs for it.
    pub kernel: Option<u64>,
    /// The cgroup's own limit; None where it has none.
    pub limit: Option<u64>,
    /// Page faults.
    pub faults: Faults,
    /// Page faults of the cgroup without those below it, where the kernel tells them apart.
    pub own_faults: Option<Faults>,
    /// The most that it ever was.
    pub peak: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: Option<u64>,
    /// Processes that were killed at the limit.
    pub oom_kills: Option<u64>,
    /// What is protected from reclaim (`memory.min`), or the soft limit of version 1; 0 = none.
    pub reservation: Option<u64>,
    /// Waiting for memory.
    pub pressure: Option<Pressure>,
}

/// Page faults since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// All.
    pub all: u64,
    /// Those that had to read from a device.
    pub major: u64,
}

/// Swapped memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// Swapped out now.
    pub usage: u64,
    /// The most that may be; None where there is no limit.
    pub limit: Option<u64>,
}

/// Time lost by waiting (kernel documentation, psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some process waited.
    pub some: Stall,
    /// All processes waited at the same time.
    pub full: Stall,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Nanoseconds since the cgroup was made.
    pub total: u64,
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
}

/// What went to and came from one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// As [`crate::drivers::block::device_name`] has it.
    pub name: String,
    /// Its number.
    pub major: u32,
    /// Its number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// `2MB`, as the kernel names it.
    pub size: String,
    /// Now.
    pub usage: u64,
    /// The most that it ever was; None where the kernel does not keep it.
    pub peak: Option<u64>,
}

/// Which counters a node has that not every node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Pressure of cgroups.
    pub pressure: bool,
    /// Huge pages.
    pub huge_pages: bool,
}

impl Memory {
    /// Without what the kernel would reclaim first: what the kubelet evicts by.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

impl Cgroups {
    /// Reads the counters of a pod's or a container's cgroup. None where the cgroup is gone. Blocking, for about a tenth of
    /// a millisecond.
    pub fn usage(&self, place: &impl Place, detail: Detail) -> Option<Usage> {
        let mut usage = match &self.inner.hierarchies {
            Hierarchies::V2(root) => v2::usage(root, place.place(), detail),
            hierarchies @ Hierarchies::V1(_) => v1::usage(hierarchies, place.place(), detail),
        };
        // Also of one that goes while it is read.
        if usage.cpu.is_none() && usage.memory.is_none() && usage.threads.is_none() {
            return None;
        }
        for device in &mut usage.devices {
            device.name = device_name(device.major, device.minor);
        }
        usage.at = clock::now();
        Some(usage)
    }

    /// The memory limit of the cgroup above: for a pod that is the kubelet's, which has the pod's own limits.
    pub fn memory_limit_above(&self, place: &impl Place) -> Option<u64> {
        let (above, _) = place.place().rsplit_once('/')?;
        let dir = Dir::open(&self.inner.hierarchies.dir("memory", above)?)?;
        match self.mode() {
            Mode::V2 => dir.number("memory.max"),
            Mode::V1 => dir.number("memory.limit_in_bytes").filter(|limit| *limit < v1::NO_LIMIT),
        }
    }

    /// Looks at the node.
    pub fn sources(&self) -> Sources {
        match &self.inner.hierarchies {
            Hierarchies::V2(root) => v2::sources(root),
            hierarchies @ Hierarchies::V1(_) => v1::sources(hierarchies),
        }
    }
}

/// The sizes of the node's huge pages, as the kernel writes them in names of cgroup files; they don't change.
fn huge_page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut sizes: Vec<u64> = names
            .filter_map(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
            .collect();
        sizes.sort_unstable();
        sizes.into_iter().map(huge_page_name).collect()
    })
}

fn huge_page_name(kilobytes: u64) -> String {
    match kilobytes {
        1_048_576.. => format!("{}GB", kilobytes >> 20),
        1024.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    }
}

/// The directory of a cgroup: one look-up of its path for all of its files.
struct Dir(OwnedFd);

impl Dir {
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, FileMode::empty()).ok().map(Self)
    }

    fn file(&self, name: &str) -> Option<OwnedFd> {
        rustix::fs::openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty()).ok()
    }

    /// A file that holds one number; None also for `max`.
    fn number(&self, name: &str) -> Option<u64> {
        let mut bytes = [0; 32];
        let read = rustix::io::read(self.file(name)?, &mut bytes).ok()?;
        std::str::from_utf8(&bytes[..read]).ok()?.trim_ascii().parse().ok()
    }

    /// A whole file, in `buffer`.
    fn text<'a>(&self, name: &str, buffer: &'a mut String) -> Option<&'a str> {
        buffer.clear();
        File::from(self.file(name)?).read_to_string(buffer).ok()?;
        Some(buffer)
    }

    fn has(&self, name: &str) -> bool {
        rustix::fs::accessat(&self.0, name, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::huge_page_name;

    #[test]
    fn huge_pages_are_named_as_the_kernel_does() {
        assert_eq!([64, 2048, 1_048_576].map(huge_page_name), ["64KB", "2MB", "1GB"]);
    }
}
