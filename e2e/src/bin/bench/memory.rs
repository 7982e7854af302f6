//! Memory of the runtime's own processes (proportional set size, as the kernel sums it up in smaps_rollup), and the
//! processor time that they used.

use std::fs;

use anyhow::{Context, Result};
use berth_e2e::node::Node;

use super::report::{Results, Unit};
use super::{Contender, Flags, pods};

/// Brings pods up, reads, takes them down.
pub async fn measure(
    flags: &Flags,
    contenders: &[Contender],
    image: &str,
    results: &mut Results,
) -> Result<()> {
    if flags.memory_pods == 0 {
        return Ok(());
    }
    for contender in contenders {
        let client = contender.node.client().await?;
        let mut ids = Vec::new();
        for _ in 0..flags.memory_pods {
            ids.push(pods::up(&client, &contender.node, image).await?.0);
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let helpers = helpers(&contender.node)?;
        let each = helpers as f64 / flags.memory_pods as f64;
        results.add(&contender.name, "PSS per pod, without daemon", Unit::Kibibytes, each);
        let daemon = contender.node.pid().context("the daemon does not run")?;
        let rollup = |field| rollup(&daemon.to_string(), field).context("the daemon's smaps_rollup");
        results.add(&contender.name, "daemon PSS", Unit::Kibibytes, rollup("Pss:")? as f64);
        results.add(&contender.name, "daemon RSS", Unit::Kibibytes, rollup("Rss:")? as f64);
        for id in ids {
            pods::down(&client, &id).await?;
        }
    }
    Ok(())
}

/// KiB of all processes that are there because of the node's pods, other than the daemon and the workloads.
fn helpers(node: &Node) -> Result<u64> {
    let (scratch, cgroup) = (node.scratch().to_string_lossy().into_owned(), node.cgroup_parent().path());
    let daemon = node.pid().map(|pid| pid.to_string());
    let mut sum = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || daemon.as_ref() == Some(&pid) {
            continue;
        }
        let text = |name| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let ours = text("cmdline").contains(&scratch) || text("cgroup").contains(&cgroup);
        if ours && text("comm").trim() != "sleep" {
            sum += rollup(&pid, "Pss:").unwrap_or(0);
        }
    }
    Ok(sum)
}

fn rollup(pid: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Seconds of processor time that the daemon and what it has run have used.
pub fn cpu(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // utime, stime, cutime, cstime, in hundredths; the second field is a name and may hold spaces.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(4);
    let ticks: f64 = fields.map(str::parse::<f64>).sum::<Result<f64, _>>().context("the daemon's stat")?;
    Ok(ticks / 100.0)
}

/// From now on [`peak`] counts anew.
pub fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("reset the peak RSS of {pid}"))
}

/// KiB: the largest RSS since [`reset_peak`].
pub fn peak(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).context("no VmHWM")?.parse()?)
}
