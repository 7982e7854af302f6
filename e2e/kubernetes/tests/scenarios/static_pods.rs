//! Pods that a file on the node asks for.

use anyhow::Result;
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::scenario::scenario;

#[test]
fn a_file_makes_a_static_pod_and_its_removal_ends_it() -> Result<()> {
    scenario("static", |s| {
        let file = s.directory().static_pods().join("static.yaml");
        std::fs::write(
            &file,
            format!(
                "
apiVersion: v1
kind: Pod
metadata: {{ name: static, namespace: {} }}
spec:
  terminationGracePeriodSeconds: 1
  containers: [ {{ name: main, image: {BUSYBOX}, command: [ sh, -c, 'echo up; sleep 100000' ] }} ]
",
                s.namespace()
            ),
        )?;
        let name = format!("static-{NODE}");
        let pod = format!("pod/{name}");
        s.until(|| s.field(&pod, "{.status.phase}"), |phase| phase == "Running")?;
        assert_eq!(s.kubectl(&["logs", &name])?, "up");
        std::fs::remove_file(&file)?;
        s.wait(&pod, "delete").map(drop)
    })
}
