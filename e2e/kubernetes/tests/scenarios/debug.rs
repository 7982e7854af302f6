//! Ephemeral containers: `kubectl debug`.

use anyhow::Result;
use berth_e2e_kubernetes::images::{BUSYBOX, PAUSE};
use berth_e2e_kubernetes::scenario::scenario;

#[test]
fn an_ephemeral_container_sees_the_processes_of_its_target() -> Result<()> {
    scenario("debug", |s| {
        // No shell in it, as in many an image that someone has to debug.
        s.run("bare", PAUSE, &["/pause"])?;
        s.wait("pod/bare", "condition=Ready")?;
        let script = "ps -o pid,comm; cat /proc/1/root/pause >/dev/null && echo reached; sleep 100000";
        let debug = ["debug", "bare", "--image", BUSYBOX, "--target=bare", "--container=look", "-q", "--"];
        s.kubectl(&[&debug as &[&str], &["sh", "-c", script]].concat())?;
        let log = s.until(|| s.kubectl(&["logs", "bare", "-c", "look"]), |log| log.contains("reached"))?;
        assert!(log.contains("1 pause"), "{log}");
        let state = s.field("pod/bare", "{.status.ephemeralContainerStatuses[0].state.running.startedAt}")?;
        assert!(!state.is_empty(), "no ephemeral container is said to run");
        let restarts = s.field("pod/bare", "{.status.containerStatuses[0].restartCount}")?;
        assert_eq!(restarts, "0");
        Ok(())
    })
}

#[test]
fn a_copy_of_a_pod_runs_with_another_command() -> Result<()> {
    scenario("debug-copy", |s| {
        s.run("bad", BUSYBOX, &["no-such-program"])?;
        let reason = "{.status.containerStatuses[0].state.terminated.reason}";
        s.until(
            || s.field("pod/bad", reason),
            |reason| reason == "StartError" || reason == "ContainerCannotRun",
        )?;
        let message = s.field("pod/bad", "{.status.containerStatuses[0].state.terminated.message}")?;
        assert!(message.contains("no-such-program"), "{message}");
        let copy = ["debug", "bad", "--copy-to=copy", "--container=bad", "-q", "--", "sleep", "100000"];
        s.kubectl(&copy)?;
        s.wait("pod/copy", "condition=Ready").map(drop)
    })
}
