//! The node's disk gets full: images that nobody uses go first, then the pod that takes most.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};
use berth_e2e::crictl::Crictl;
use berth_e2e::images::{Image, Layer};
use berth_e2e::registry::Registry;
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::pods::{alone, shell, sleeper, with};
use berth_e2e_kubernetes::scenario::{Scenario, disturbance};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// The kubelet's hard threshold.
const THRESHOLD: u64 = 1024 * MIB;

/// A file that takes the node's disk but so many bytes. Dropping it removes it.
struct Ballast(PathBuf);

impl Ballast {
    fn leave(s: &Scenario, bytes: u64) -> Result<Self> {
        let disk = statvfs(&s.directory().disk())?;
        let size = disk.blocks_available() * disk.fragment_size() - bytes;
        let ballast = Self(s.directory().disk().join(s.namespace()));
        nix::fcntl::posix_fallocate(File::create(&ballast.0)?, 0, size.try_into()?)
            .context("fill the disk")?;
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn images(s: &Scenario) -> Result<String> {
    s.field(&format!("node/{NODE}"), "{.status.images[*].names}")
}

fn under_pressure(s: &Scenario) -> Result<String> {
    s.field(&format!("node/{NODE}"), r#"{.status.conditions[?(@.type=="DiskPressure")].status}"#)
}

/// Bytes of the disk that the kubelet believes a pod to have.
fn taken(s: &Scenario, pod: &str) -> Result<u64> {
    let summary = s.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy/stats/summary")])?;
    let summary: Value = serde_json::from_str(&summary)?;
    let mut pods = summary["pods"].as_array().into_iter().flatten();
    let found = pods.find(|found| found["podRef"]["name"] == pod);
    found.and_then(|pod| pod["ephemeral-storage"]["usedBytes"].as_u64()).context("the kubelet has no figures")
}

fn settle(s: &Scenario) -> Result<()> {
    s.until(|| under_pressure(s), |pressure| pressure == "False")?;
    let taints = || s.field(&format!("node/{NODE}"), "{.spec.taints}");
    s.until(taints, |taints| !taints.contains("disk-pressure")).map(drop)
}

#[test]
fn a_full_disk_costs_images_that_nobody_uses_and_no_pod() -> Result<()> {
    disturbance("image-gc", |s| {
        let registry = Registry::start()?;
        let big = Image::of(Layer::default().file("big", 0o644, vec![7; 200 << 20]))
            .layer(Layer::default().file("name", 0o644, s.namespace()));
        let name = registry.publish("big", "1", &big)?;
        let volumes = json!({ "volumes": [{ "name": "big", "image": { "reference": name } }] });
        let mounts = json!({ "volumeMounts": [{ "name": "big", "mountPath": "/big" }] });
        let said = s.said("user", with(alone(with(shell("du -m /big/big | cut -f1"), mounts)), volumes))?;
        assert_eq!(said, "200");
        s.start("stays", alone(sleeper()))?;
        s.until(|| images(s), |images| images.contains(&name))?;
        s.kubectl(&["delete", "pod", "user"])?;
        // The kubelet spares images that it has not seen before, and looks each five minutes, or when it starts.
        s.restart("kubelet", Signal::SIGTERM)?;
        s.until(|| s.shell("stays", "echo here"), |said| said == "here")?;
        // Removing the image is enough.
        let ballast = Ballast::leave(s, THRESHOLD - 50 * MIB)?;
        s.until(|| images(s), |images| !images.contains(&name))?;
        assert!(images(s)?.contains(BUSYBOX), "the image of a running pod is gone");
        settle(s)?;
        let disk = statvfs(&s.directory().disk())?;
        assert!(
            disk.blocks_available() * disk.fragment_size() > THRESHOLD + 100 * MIB,
            "its space is not free"
        );
        drop(ballast);
        assert_eq!(s.field("pod/stays", "{.status.phase}")?, "Running");
        assert_eq!(s.shell("stays", "echo here")?, "here");
        Ok(())
    })
}

#[test]
fn a_disk_that_stays_full_costs_the_pod_that_takes_most() -> Result<()> {
    disturbance("eviction", |s| {
        s.start("modest", alone(sleeper()))?;
        let greedy = shell("dd if=/dev/zero of=/big bs=1M count=300 2>/dev/null; while :; do sleep 1; done");
        s.start("greedy", alone(greedy))?;
        s.until(|| taken(s, "greedy"), |bytes| *bytes >= 300 * MIB)?;
        // The kubelet removes images that nobody uses first, and those that other tests have left must not be enough.
        Crictl::at(&s.directory().socket())?.run(&["rmi", "--prune"])?;
        let ballast = Ballast::leave(s, THRESHOLD - 200 * MIB)?;
        s.until(|| s.field("pod/greedy", "{.status.reason}"), |reason| reason == "Evicted")?;
        let message = s.field("pod/greedy", "{.status.message}")?;
        assert!(message.contains("The node was low on resource: ephemeral-storage"), "{message}");
        drop(ballast);
        settle(s)?;
        assert_eq!(s.field("pod/modest", "{.status.phase}")?, "Running");
        assert_eq!(s.shell("modest", "echo here")?, "here");
        // The node takes pods again.
        s.start("next", alone(sleeper()))
    })
}
