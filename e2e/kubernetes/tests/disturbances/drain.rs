//! `kubectl drain` and `uncordon`.

use anyhow::Result;
use berth_e2e_kubernetes::images::{BUSYBOX, PAUSE};
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::pods::{alone, shell, with};
use berth_e2e_kubernetes::scenario::disturbance;
use serde_json::json;

#[test]
fn a_drained_node_has_its_pods_again_when_it_is_uncordoned() -> Result<()> {
    disturbance("drain", |s| {
        s.kubectl(&["create", "deployment", "web", "--image", PAUSE, "--replicas=3"])?;
        s.kubectl(&["rollout", "status", "deployment/web", "--timeout=240s"])?;
        // Of nobody, and with something to do before it ends, for which it has the time.
        let stops = s.directory().disk().join(s.namespace());
        std::fs::create_dir(&stops)?;
        let main = with(
            shell("trap 'sleep 2; echo stopped > /stops/main; exit' TERM; while :; do sleep 0.2; done"),
            json!({ "volumeMounts": [{ "name": "stops", "mountPath": "/stops" }] }),
        );
        let volumes = json!([{ "name": "stops", "hostPath": { "path": stops } }]);
        s.start(
            "slow",
            with(alone(main), json!({ "volumes": volumes, "terminationGracePeriodSeconds": 30 })),
        )?;
        let drained = s.kubectl(&[
            "drain",
            NODE,
            "--force",
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=240s",
        ]);
        let marker = std::fs::read_to_string(stops.join("main"));
        std::fs::remove_dir_all(&stops)?;
        let while_drained = drained.and_then(|_| {
            let names = s.kubectl(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"])?;
            let node = s.field(&format!("node/{NODE}"), "{.spec.unschedulable}")?;
            s.run("waits", BUSYBOX, &["sleep", "100000"])?;
            Ok((names, node, s.event("waits", "FailedScheduling")?))
        });
        s.kubectl(&["uncordon", NODE])?;
        let (names, unschedulable, event) = while_drained?;
        assert_eq!(names, "", "pods run on a drained node");
        assert_eq!(unschedulable, "true");
        assert!(event.contains("unschedulable"), "{event}");
        assert_eq!(marker?, "stopped\n");
        s.kubectl(&["rollout", "status", "deployment/web", "--timeout=240s"])?;
        s.wait("pod/waits", "condition=Ready").map(drop)
    })
}
