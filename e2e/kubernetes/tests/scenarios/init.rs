//! Init containers and sidecars: order, restarts, and what ends when.

use anyhow::Result;
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::scenario::scenario;

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() -> Result<()> {
    scenario("init", |s| {
        s.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: order }}
spec:
  restartPolicy: Never
  volumes: [ {{ name: shared, emptyDir: {{}} }} ]
  initContainers:
  - {{ name: one, image: {BUSYBOX}, command: [ sh, -c, 'sleep 1; echo one >> /shared/order' ],
      volumeMounts: [ {{ name: shared, mountPath: /shared }} ] }}
  - {{ name: two, image: {BUSYBOX}, command: [ sh, -c, 'echo two >> /shared/order' ],
      volumeMounts: [ {{ name: shared, mountPath: /shared }} ] }}
  containers:
  - {{ name: main, image: {BUSYBOX}, command: [ cat, /shared/order ],
      volumeMounts: [ {{ name: shared, mountPath: /shared }} ] }}
"
        ))?;
        s.wait("pod/order", "jsonpath={.status.phase}=Succeeded")?;
        assert_eq!(s.kubectl(&["logs", "order", "-c", "main"])?, "one\ntwo");
        let reasons = s.field("pod/order", "{.status.initContainerStatuses[*].state.terminated.reason}")?;
        assert_eq!(reasons, "Completed Completed");
        Ok(())
    })
}

#[test]
fn a_failing_init_container_holds_the_pod_back() -> Result<()> {
    scenario("bad-init", |s| {
        s.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: held }}
spec:
  restartPolicy: Never
  initContainers: [ {{ name: bad, image: {BUSYBOX}, command: [ sh, -c, exit 5 ] }} ]
  containers: [ {{ name: main, image: {BUSYBOX}, command: [ echo, never ] }} ]
"
        ))?;
        s.wait("pod/held", "jsonpath={.status.phase}=Failed")?;
        let code = "{.status.initContainerStatuses[0].state.terminated.exitCode}";
        assert_eq!(s.field("pod/held", code)?, "5");
        let main = s.field("pod/held", "{.status.containerStatuses[0].state.waiting.reason}")?;
        assert_eq!(main, "PodInitializing");
        Ok(())
    })
}

#[test]
fn a_sidecar_runs_beside_the_work_and_ends_with_it() -> Result<()> {
    scenario("sidecar", |s| {
        let sidecar =
            "trap 'echo sidecar ends; exit 0' TERM; touch /shared/ready; while :; do sleep 0.2; done";
        s.apply(&format!(
            "
apiVersion: batch/v1
kind: Job
metadata: {{ name: work }}
spec:
  template:
    spec:
      restartPolicy: Never
      volumes: [ {{ name: shared, emptyDir: {{}} }} ]
      initContainers:
      - name: sidecar
        image: {BUSYBOX}
        restartPolicy: Always
        command: [ sh, -c, \"{sidecar}\" ]
        startupProbe: {{ exec: {{ command: [ test, -e, /shared/ready ] }}, periodSeconds: 1 }}
        volumeMounts: [ {{ name: shared, mountPath: /shared }} ]
      containers:
      - name: main
        image: {BUSYBOX}
        # The sidecar was up before.
        command: [ sh, -c, 'test -e /shared/ready && sleep 2 && echo worked' ]
        volumeMounts: [ {{ name: shared, mountPath: /shared }} ]
"
        ))?;
        s.wait("job/work", "condition=Complete")?;
        assert_eq!(s.kubectl(&["logs", "job/work", "-c", "main"])?, "worked");
        assert_eq!(s.kubectl(&["logs", "job/work", "-c", "sidecar"])?, "sidecar ends");
        let ended = "jsonpath={.items[0].status.initContainerStatuses[0].state.terminated.exitCode}";
        assert_eq!(s.kubectl(&["get", "pods", "-l", "job-name=work", "-o", ended])?, "0");
        Ok(())
    })
}
