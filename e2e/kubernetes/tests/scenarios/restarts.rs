//! Why and how containers are started again: probes, crashes, memory; and how they end.

use anyhow::Result;
use berth_e2e_kubernetes::images::{AGNHOST, BUSYBOX};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};

fn restarts(s: &Scenario, pod: &str) -> Result<u32> {
    let count = s.field(&format!("pod/{pod}"), "{.status.containerStatuses[0].restartCount}")?;
    Ok(count.parse().unwrap_or(0))
}

fn events(s: &Scenario, reason: &str) -> Result<String> {
    let selector = format!("--field-selector=reason={reason}");
    s.kubectl(&["get", "events", &selector, "-o", r#"jsonpath={range .items[*]}{.message}{"\n"}{end}"#])
}

/// A pod `name` with one container of busybox and these further lines of its specification.
fn pod(name: &str, script: &str, lines: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {BUSYBOX}
    command: [ sh, -c, '{script}' ]
{lines}
"
    )
}

#[test]
fn a_failed_exec_liveness_probe_restarts_the_container() -> Result<()> {
    scenario("liveness-exec", |s| {
        let probe = "    livenessProbe: { exec: { command: [ sh, -c, 'test -e /tmp/well || { echo unwell; exit 1; }' ] },
                     periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 2 }";
        s.apply(&pod("ill", "touch /tmp/well; sleep 5; rm /tmp/well; sleep 100000", probe))?;
        s.until(|| restarts(s, "ill"), |count| *count >= 1)?;
        let message = events(s, "Unhealthy")?;
        assert!(message.contains("Liveness probe failed") && message.contains("unwell"), "{message}");
        let code = s.field("pod/ill", "{.status.containerStatuses[0].lastState.terminated.exitCode}")?;
        assert_eq!(code, "137");
        Ok(())
    })
}

#[test]
fn a_failed_http_liveness_probe_restarts_the_container() -> Result<()> {
    scenario("liveness-http", |s| {
        s.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: ill }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {AGNHOST}
    # Well for ten seconds.
    args: [ liveness ]
    livenessProbe: {{ httpGet: {{ path: /healthz, port: 8080 }}, periodSeconds: 1, failureThreshold: 1 }}
"
        ))?;
        s.until(|| restarts(s, "ill"), |count| *count >= 1)?;
        let message = events(s, "Unhealthy")?;
        assert!(message.contains("HTTP probe failed with statuscode: 500"), "{message}");
        Ok(())
    })
}

#[test]
fn readiness_follows_its_probe_without_a_restart() -> Result<()> {
    scenario("readiness", |s| {
        let probe = "    readinessProbe: { exec: { command: [ test, -e, /tmp/ready ] }, periodSeconds: 1 }";
        s.apply(&pod("shy", "sleep 100000", probe))?;
        s.wait("pod/shy", "jsonpath={.status.phase}=Running")?;
        let ready = || s.field("pod/shy", "{.status.containerStatuses[0].ready}");
        assert_eq!(ready()?, "false");
        s.kubectl(&["exec", "shy", "--", "touch", "/tmp/ready"])?;
        s.wait("pod/shy", "condition=Ready")?;
        s.kubectl(&["exec", "shy", "--", "rm", "/tmp/ready"])?;
        s.wait("pod/shy", "condition=Ready=False")?;
        assert_eq!(restarts(s, "shy")?, 0);
        Ok(())
    })
}

#[test]
fn a_startup_probe_holds_the_liveness_probe_off() -> Result<()> {
    scenario("startup", |s| {
        let probes = "    startupProbe: { exec: { command: [ test, -e, /tmp/up ] }, periodSeconds: 1, failureThreshold: 60 }
    livenessProbe: { exec: { command: [ test, -e, /tmp/up ] }, periodSeconds: 1, failureThreshold: 1 }";
        s.apply(&pod("slow", "sleep 8; touch /tmp/up; sleep 100000", probes))?;
        s.wait("pod/slow", "condition=Ready")?;
        assert_eq!(s.field("pod/slow", "{.status.containerStatuses[0].started}")?, "true");
        assert_eq!(restarts(s, "slow")?, 0);
        Ok(())
    })
}

#[test]
fn a_container_that_keeps_crashing_waits_longer_and_longer() -> Result<()> {
    scenario("crash", |s| {
        s.apply(&pod("crash", "echo dying; exit 9", ""))?;
        let waiting = || s.field("pod/crash", "{.status.containerStatuses[0].state.waiting.reason}");
        s.until(waiting, |reason| reason == "CrashLoopBackOff")?;
        s.until(|| restarts(s, "crash"), |count| *count >= 2)?;
        let code = s.field("pod/crash", "{.status.containerStatuses[0].lastState.terminated.exitCode}")?;
        assert_eq!(code, "9");
        let message = events(s, "BackOff")?;
        assert!(message.contains("restarting failed container main"), "{message}");
        // kubectl prints that there is none for the moment in which the kubelet replaces one.
        s.until(|| s.kubectl(&["logs", "crash", "--previous"]), |log| log == "dying").map(drop)
    })
}

#[test]
fn a_container_out_of_memory_is_said_to_be() -> Result<()> {
    scenario("oom", |s| {
        let limit = "    resources: { limits: { memory: 32Mi } }\n  restartPolicy: Never";
        s.apply(&pod("greedy", "exec tail /dev/zero", limit))?;
        s.wait("pod/greedy", "jsonpath={.status.phase}=Failed")?;
        let ended = "{.status.containerStatuses[0].state.terminated";
        assert_eq!(s.field("pod/greedy", &format!("{ended}.reason}}"))?, "OOMKilled");
        assert_eq!(s.field("pod/greedy", &format!("{ended}.exitCode}}"))?, "137");
        Ok(())
    })
}

#[test]
fn a_deleted_pod_runs_its_hook_and_ends_in_peace() -> Result<()> {
    scenario("pre-stop", |s| {
        let script = "trap \"echo ended >> /told/order; exit 0\" TERM; while :; do sleep 0.1; done";
        let directory = format!("/var/log/{}", s.namespace());
        let lines = format!(
            "    lifecycle: {{ preStop: {{ exec: {{ command: [ sh, -c, 'sleep 1; echo hook >> /told/order' ] }} }} }}
    volumeMounts: [ {{ name: told, mountPath: /told }} ]
  volumes: [ {{ name: told, hostPath: {{ path: {directory}, type: DirectoryOrCreate }} }} ]"
        );
        let spec = pod("polite", script, &lines).replace("PeriodSeconds: 1", "PeriodSeconds: 20");
        s.apply(&spec)?;
        s.wait("pod/polite", "condition=Ready")?;
        let started = std::time::Instant::now();
        s.kubectl(&["delete", "pod", "polite", "--timeout=60s"])?;
        assert!(started.elapsed().as_secs() < 19, "it waited for the end of the grace period");
        assert_eq!(std::fs::read_to_string(format!("{directory}/order"))?, "hook\nended\n");
        Ok(())
    })
}

#[test]
fn a_postponed_end_is_cut_short_after_the_grace_period() -> Result<()> {
    scenario("grace", |s| {
        s.apply(&pod("deaf", "trap \"\" TERM; while :; do sleep 0.1; done", ""))?;
        s.wait("pod/deaf", "condition=Ready")?;
        s.kubectl(&["delete", "pod", "deaf", "--timeout=60s"])?;
        let gone = s.refused(&["get", "pod", "deaf"])?;
        assert!(gone.contains("not found"), "{gone}");
        Ok(())
    })
}
