//! What `kubectl get node` tells of a node with Berth.

use anyhow::Result;
use berth_e2e::runtime::Runtime;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::scenario::scenario;

#[test]
fn the_node_is_ready_and_names_its_runtime() -> Result<()> {
    scenario("node", |s| {
        let node = format!("node/{NODE}");
        assert_eq!(s.field(&node, r#"{.status.conditions[?(@.type=="Ready")].status}"#)?, "True");
        let version = s.field(&node, "{.status.nodeInfo.containerRuntimeVersion}")?;
        let expected = match Runtime::from_env()? {
            Runtime::Berth => format!("berth://{}", env!("CARGO_PKG_VERSION")),
            Runtime::Containerd => "containerd://".into(),
        };
        assert!(version.starts_with(&expected), "{version}");
        // What the API server and the scheduler decide by.
        let names = s.field(&node, "{.status.runtimeHandlers[*].features}")?;
        assert!(names.contains(r#""userNamespaces":true"#), "{names}");
        assert_eq!(s.field(&node, "{.status.features.supplementalGroupsPolicy}")?, "true");
        assert_eq!(s.field(&node, "{.status.capacity.pods}")?, "110");
        Ok(())
    })
}

#[test]
fn the_nodes_images_are_listed_with_tag_and_digest() -> Result<()> {
    scenario("node-images", |s| {
        let pause = berth_e2e_kubernetes::images::PAUSE;
        s.run("pause", pause, &["/pause"])?;
        s.wait("pod/pause", "condition=Ready")?;
        let names = || s.field(&format!("node/{NODE}"), "{.status.images[*].names}");
        let digest = "registry.k8s.io/pause@sha256:";
        s.until(names, |names| names.contains(pause) && names.contains(digest)).map(drop)
    })
}
