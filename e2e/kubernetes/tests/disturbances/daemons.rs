//! The daemons of the node end and come back.

use anyhow::Result;
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::scenario::{Scenario, disturbance};
use nix::sys::signal::Signal;

/// A pod that writes the time each tenth of a second: its container's id, and the number of lines that it has written.
fn writer(s: &Scenario) -> Result<String> {
    let script = "while :; do date +%s; sleep 0.1; done";
    s.run("writer", BUSYBOX, &["sh", "-c", script])?;
    s.wait("pod/writer", "condition=Ready")?;
    s.field("pod/writer", "{.status.containerStatuses[0].containerID}")
}

fn nothing_restarted(s: &Scenario, id: &str) -> Result<()> {
    // Exec needs kubelet and runtime, so both have seen the pod again.
    s.until(|| s.kubectl(&["exec", "writer", "--", "echo", "back"]), |said| said == "back")?;
    assert_eq!(s.field("pod/writer", "{.status.containerStatuses[0].containerID}")?, id);
    assert_eq!(s.field("pod/writer", "{.status.containerStatuses[0].restartCount}")?, "0");
    let log = s.kubectl(&["logs", "writer"])?;
    let times: Vec<i64> = log.lines().map(str::parse).collect::<Result<_, _>>()?;
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(gap.is_some_and(|gap| gap < 5), "the log has a hole of {gap:?} seconds");
    let before = times.len();
    s.until(|| Ok(s.kubectl(&["logs", "writer"])?.lines().count()), |now| *now > before).map(drop)
}

#[test]
fn containers_run_on_while_the_runtime_is_killed_and_starts_again() -> Result<()> {
    disturbance("runtime-killed", |s| {
        let id = writer(s)?;
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            s.restart("runtime", signal)?;
            nothing_restarted(s, &id)?;
        }
        Ok(())
    })
}

#[test]
fn containers_run_on_while_the_kubelet_is_killed_and_starts_again() -> Result<()> {
    disturbance("kubelet-killed", |s| {
        let id = writer(s)?;
        s.restart("kubelet", Signal::SIGKILL)?;
        nothing_restarted(s, &id)
    })
}
