//! `process_*`, as every Prometheus client has them, from /proc (proc(5)).

use std::fmt::Error;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// This process.
#[derive(Debug)]
pub(super) struct Process;

/// What /proc/self/stat says.
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    start_time: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut show = |name: &str, help: &str, unit: Option<Unit>, metric: &dyn Shown| {
            metric.show(&mut encoder, (name, help, unit))
        };
        if let Some(stat) = stat() {
            let cpu = ConstCounter::new(stat.cpu_seconds);
            show("process_cpu", "User and system time", Some(Unit::Seconds), &cpu)?;
            let start = ConstGauge::new(stat.start_time);
            show("process_start_time", "Since the epoch", Some(Unit::Seconds), &start)?;
            show("process_threads", "Threads", None, &gauge(stat.threads))?;
            show("process_virtual_memory", "Mapped", Some(Unit::Bytes), &gauge(stat.virtual_bytes))?;
            show("process_resident_memory", "In memory", Some(Unit::Bytes), &gauge(stat.resident_bytes))?;
        }
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        show("process_open_fds", "Open file descriptors", None, &gauge(open as u64))?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        show("process_max_fds", "Most of them", None, &gauge(limit.unwrap_or(0)))
    }
}

fn gauge(value: u64) -> ConstGauge<f64> {
    ConstGauge::new(value as f64)
}

/// A metric with its description.
trait Shown {
    fn show(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        about: (&str, &str, Option<Unit>),
    ) -> Result<(), Error>;
}

impl<M: EncodeMetric> Shown for M {
    fn show(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<Unit>),
    ) -> Result<(), Error> {
        self.encode(encoder.encode_descriptor(name, help, unit.as_ref(), self.metric_type())?)
    }
}

fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold blanks; after it comes field 3.
    let fields: Vec<u64> =
        text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        start_time: boot + field(22)? as f64 / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * rustix::param::page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn this_process_is_what_the_kernel_says() {
        let stat = stat().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(stat.start_time <= now + 1.0 && now - stat.start_time < 3600.0, "{} {now}", stat.start_time);
        assert!(stat.threads >= 2 && stat.resident_bytes > 1 << 20);
        assert!(stat.virtual_bytes >= stat.resident_bytes);
    }
}
