//! Memory that the host of a virtual machine has given already. What the guest frees is reported to the host, which takes it
//! (Linux: page_reporting), and giving it again costs microseconds a page: five seconds for the pages of a pull, which would
//! be the host's time and not a runtime's. What does not live here: what is measured.

use std::fs;

use anyhow::{Context, Result};

/// Blocks of 2^order pages are reported; the kernel has none as large as this.
const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
const NEVER: &str = "11";
const PAGE: usize = 4096;
/// More than what is pulled needs of the page cache.
const ENOUGH: usize = 12 << 30;

/// While this is, freed memory stays.
pub struct Memory {
    order: Option<String>,
}

impl Memory {
    /// Has the host give what will be needed.
    pub fn take() -> Result<Self> {
        let order = fs::read_to_string(ORDER).ok();
        if order.is_some() {
            fs::write(ORDER, NEVER).with_context(|| format!("write {ORDER}"))?;
        }
        let taken = Self { order };
        let mut memory = vec![0_u8; ENOUGH.min(available()? / 4 * 3)];
        memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        std::hint::black_box(&memory);
        Ok(taken)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(order) = &self.order {
            let _ = fs::write(ORDER, order.trim());
        }
    }
}

/// In bytes (proc_meminfo(5)).
fn available() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}
