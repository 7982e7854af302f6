//! What is remembered between two answers about usage: a sample of processor time, peaks, and when the disk was last
//! looked at. What does not live here: reading the counters.
//!
//! Nothing is polled. A rate is that between an answer and one before it, so whoever asks sets the pace (the kubelet: every
//! ten seconds); with nobody asking, nothing is read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::drivers::cgroup::stats::Usage;
use crate::drivers::disk_usage::DiskUsage;

/// Of a container or a pod.
#[derive(Debug, Default)]
pub struct Gauges {
    processor: Mutex<Processor>,
    peaks: Mutex<Peaks>,
    disk: Mutex<Disk>,
}

impl Gauges {
    /// Takes note of new counters: returns nanoseconds of processor time a second, and fills in the peaks that this kernel
    /// does not keep with the most that was ever seen here. `age` is how long the thing has been running.
    pub fn observe(&self, usage: &mut Usage, age: Duration) -> Option<u64> {
        lock(&self.peaks).observe(usage);
        let total = usage.cpu.as_ref()?.usage;
        lock(&self.processor).rate(total, Instant::now(), age)
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shortest time that says anything about a rate.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// The longest time whose average may pass for what is going on now.
const WINDOW_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
struct Processor {
    sample: Option<(Instant, u64)>,
    rate: Option<u64>,
}

impl Processor {
    /// The rate since the last sample, which a new one replaces unless it is too young. Without a sample, or with one too
    /// old, the rate is that since the start, if that was not long ago, else unknown until the next time.
    fn rate(&mut self, total: u64, now: Instant, age: Duration) -> Option<u64> {
        let (window, before) = match self.sample {
            Some((then, before)) if now.duration_since(then) <= WINDOW_MAX => {
                (now.duration_since(then), before)
            }
            _ => (age, 0),
        };
        if self.sample.is_some() && window < WINDOW_MIN {
            return self.rate;
        }
        self.sample = Some((now, total));
        let known = (WINDOW_MIN..=WINDOW_MAX).contains(&window);
        self.rate = known.then(|| per_second(total.checked_sub(before)?, window)).flatten();
        self.rate
    }
}

fn per_second(nanoseconds: u64, window: Duration) -> Option<u64> {
    let rate = u128::from(nanoseconds) * 1_000_000_000 / window.as_nanos().max(1);
    u64::try_from(rate).ok()
}

/// The most that was seen, where the kernel does not keep it: memory before Linux 5.19, huge pages of cgroup v2.
#[derive(Debug, Default)]
struct Peaks {
    memory: u64,
    huge_pages: BTreeMap<String, u64>,
}

impl Peaks {
    fn observe(&mut self, usage: &mut Usage) {
        if let Some(memory) = &mut usage.memory {
            self.memory = self.memory.max(memory.usage);
            memory.peak.get_or_insert(self.memory);
        }
        for pages in usage.huge_pages.iter_mut().filter(|pages| pages.peak.is_none()) {
            let peak = self.huge_pages.entry(pages.size.clone()).or_default();
            *peak = (*peak).max(pages.usage);
            pages.peak = Some(*peak);
        }
    }
}

/// What the writable layer occupied when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritableLayer {
    /// When that was: nanoseconds since the epoch.
    pub at: i64,
    /// What it was.
    pub usage: DiskUsage,
}

/// No second look sooner than this.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// A layer that never changes is looked at this often.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A look that takes long is worth waiting for: this many times as long as it took.
const PAUSE_OF_COST: u32 = 20;

/// When a writable layer is looked at: when somebody asks and the last look is old enough. What does not change is looked
/// at ever more rarely, and what costs much is, too.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub known: Option<WritableLayer>,
    /// None = now.
    due: Option<Instant>,
    pause: Duration,
    under_way: bool,
}

impl Disk {
    /// Whether to look now; if so, `done` has to follow.
    pub fn begin(&mut self, now: Instant) -> bool {
        let begin = !self.under_way && self.due.is_none_or(|due| due <= now);
        self.under_way |= begin;
        begin
    }

    /// The look has ended at `now`; None = it failed, what was known stays.
    pub fn done(&mut self, found: Option<WritableLayer>, now: Instant, took: Duration) {
        let changed = self.known.map(|known| known.usage) != found.map(|found| found.usage);
        self.under_way = false;
        self.pause = if changed { PAUSE_MIN } else { (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        self.due = Some(now + self.pause.max(took * PAUSE_OF_COST));
        self.known = found.or(self.known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::cgroup::stats::{HugePages, Memory};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_that_between_two_answers() {
        let (mut processor, start) = (Processor::default(), Instant::now());
        let mut at = |seconds: u32, total: u64| {
            processor.rate(total * 1_000_000_000, start + SECOND * seconds, SECOND * (3600 + seconds))
        };
        assert_eq!(
            at(0, 100),
            None,
            "it has run for an hour, and nobody knows when it used those 100 seconds"
        );
        assert_eq!(at(10, 105), Some(500_000_000));
        assert_eq!(at(20, 125), Some(2_000_000_000));
        assert_eq!(at(20, 126), Some(2_000_000_000), "two askers at a time get the same");
        assert_eq!(at(30, 126), Some(100_000_000));
        assert_eq!(at(1000, 127), None, "nobody asked for a while");
        assert_eq!(at(1001, 128), Some(1_000_000_000));
        assert_eq!(at(1011, 3), None, "a counter that runs backwards is another one");
    }

    #[test]
    fn the_first_answer_after_a_start_is_since_the_start() {
        let (mut processor, start) = (Processor::default(), Instant::now());
        assert_eq!(processor.rate(2_000_000_000, start, SECOND * 4), Some(500_000_000));
        let mut young = Processor::default();
        assert_eq!(young.rate(40_000_000, start, SECOND / 20), None);
        assert_eq!(young.rate(540_000_000, start + SECOND, SECOND), Some(500_000_000));
    }

    #[test]
    fn peaks_that_the_kernel_does_not_keep_are_kept() {
        let gauges = Gauges::default();
        let peaks = |memory: u64, pages: u64, kept: Option<u64>| {
            let huge_pages = vec![HugePages { size: "2MB".into(), usage: pages, peak: None }];
            let memory = Some(Memory { usage: memory, peak: kept, ..Memory::default() });
            let mut usage = Usage { memory, huge_pages, ..Usage::default() };
            gauges.observe(&mut usage, SECOND);
            (usage.memory.unwrap().peak.unwrap(), usage.huge_pages[0].peak.unwrap())
        };
        assert_eq!(peaks(10, 0, None), (10, 0));
        assert_eq!(peaks(7, 4096, None), (10, 4096));
        assert_eq!(peaks(7, 0, Some(99)), (99, 4096));
    }

    #[test]
    fn a_layer_that_does_not_change_is_looked_at_ever_more_rarely() {
        let (mut disk, mut now) = (Disk::default(), Instant::now());
        let layer = |bytes| Some(WritableLayer { at: 1, usage: DiskUsage { bytes, inodes: 1 } });
        assert!(disk.begin(now) && !disk.begin(now), "one look at a time");
        let mut pauses = Vec::new();
        for bytes in [1, 1, 1, 1, 1, 1, 2, 2] {
            disk.done(layer(bytes), now, Duration::ZERO);
            let next = (1..=100).find(|seconds| disk.begin(now + SECOND * *seconds)).unwrap();
            pauses.push(next);
            now += SECOND * next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 5, 10]);
        disk.done(None, now, SECOND * 10);
        assert_eq!(disk.known, layer(2), "a failed look leaves what was known");
        assert!(!disk.begin(now + SECOND * 199) && disk.begin(now + SECOND * 200), "what costs much is rare");
    }
}
