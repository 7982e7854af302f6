//! `helm install`, `helm upgrade` and `helm uninstall`: the DaemonSet's pod runs on this node's runtime and changes this node,
//! whose systemd is a stand-in (berth_e2e::systemd). The kubelet is the cluster's own, really switched.

use std::path::Path;

use anyhow::{Result, ensure};
use berth_e2e::crictl::Crictl;
use berth_e2e_kubernetes::chart::{Chart, Footprint, IMAGES, RELEASE, identity};
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::pods::{alone, sleeper, with};
use berth_e2e_kubernetes::scenario::{Scenario, disturbance};
use serde_json::json;

/// What differs from before, but for what pods need that still run.
fn strange(chart: &Chart<'_>, before: &Footprint, of_pods: &[&str]) -> Result<Vec<String>> {
    let now = chart.footprint()?;
    let differs = now.iter().filter(|(path, content)| before.get(*path) != Some(content));
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let paths = differs.map(|(path, _)| path).chain(gone);
    let strange = paths.filter(|path| !of_pods.iter().any(|dir| path.starts_with(dir)));
    Ok(strange.map(|path| path.display().to_string()).collect())
}

/// A pod of nobody else's that is made anew where its runtime goes.
fn witness(s: &Scenario) -> Result<()> {
    s.start("witness", with(alone(sleeper()), json!({ "restartPolicy": "Always" })))
}

/// The DaemonSet's container, by whichever runtime has it.
fn agents(runtime: &Crictl) -> Result<usize> {
    Ok(runtime.run(&["ps", "--quiet", "--name", "agent", "--state", "running"])?.lines().count())
}

fn serves_again(s: &Scenario) -> Result<()> {
    s.until_within(3, || s.shell("witness", "echo here"), |said| said == "here")?;
    let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
    s.until(|| s.field(&format!("node/{NODE}"), ready), |status| status == "True").map(drop)
}

#[test]
fn beside_the_node_s_runtime_berth_comes_and_goes_without_touching_a_pod() -> Result<()> {
    disturbance("chart-sidecar", |s| {
        witness(s)?;
        let chart = Chart::new(s)?;
        let (old, before) = (chart.old_crictl()?, chart.footprint()?);
        let untouched = chart.undisturbed(&old, "witness")?;
        let mode = ["mode=sidecar"];

        chart.release("install", IMAGES[0], &mode)?;
        chart.choose_node()?;
        chart.rolled_out()?;
        assert_eq!(agents(&old)?, 1, "the installer's pod runs on the node's runtime");
        let script = "trap exit TERM; while :; do sleep 0.2; done";
        let container = json!({
            "metadata": { "name": "survivor" }, "image": { "image": BUSYBOX }, "command": ["sh", "-c", script],
        });
        let id = chart.run_aside("survivor", &container)?;
        let survivor = identity(&chart.crictl()?, &id)?;
        let daemon = chart.daemon();

        chart.release("upgrade", IMAGES[1], &mode)?;
        chart.rolled_out()?;
        ensure!(daemon != chart.daemon() && chart.daemon().is_some(), "{daemon:?} was not replaced");
        assert_eq!(identity(&chart.crictl()?, &id)?, survivor);
        assert_eq!(chart.undisturbed(&old, "witness")?, untouched);

        // The same again is nothing new to the daemon.
        let daemon = chart.daemon();
        chart.release("upgrade", IMAGES[1], &[mode[0], "podLabels.again=yes"])?;
        chart.rolled_out()?;
        assert_eq!(chart.daemon(), daemon);

        chart.uninstall()?;
        assert_eq!(chart.daemon(), None);
        ensure!(survivor.runs(), "the pod of the daemon that was removed has ended");
        assert_eq!(chart.undisturbed(&old, "witness")?, untouched);
        let of_pods = ["/var/lib/berth", "/run/berth"];
        assert_eq!(strange(&chart, &before, &of_pods)?, [""; 0]);

        chart.release_plain("install", IMAGES[1], &mode)?;
        chart.rolled_out()?;
        let crictl = chart.crictl()?;
        assert_eq!(identity(&crictl, &id)?, survivor);
        crictl.run(&["rmp", "--all", "--force"])?;
        ensure!(!survivor.runs(), "the pod was removed and runs");
        chart.uninstall()?;
        // What it found when it came the second time is not its own.
        assert_eq!(strange(&chart, &before, &of_pods)?, [""; 0]);
        for path in of_pods.map(Path::new) {
            let _ = std::fs::remove_dir_all(path);
        }
        ensure!(chart.kubelet_is_as_before()?, "the kubelet was touched");
        assert_eq!(chart.undisturbed(&old, "witness")?, untouched);
        Ok(())
    })
}

#[test]
fn the_kubelet_moves_to_berth_upgrades_leave_its_pods_alone_and_it_moves_back() -> Result<()> {
    disturbance("chart-kubelet", |s| {
        witness(s)?;
        let chart = Chart::new(s)?;
        let (old, before) = (chart.old_crictl()?, chart.footprint()?);

        chart.release("install", IMAGES[0], &[])?;
        s.until(
            || s.field(&format!("daemonset/{RELEASE}"), "{.status.observedGeneration}"),
            |seen| seen == "1",
        )?;
        assert_eq!(agents(&old)?, 0, "a node was switched that nobody has chosen");
        chart.choose_node()?;
        chart.rolled_out()?;
        ensure!(!chart.kubelet_is_as_before()?, "the kubelet was not switched");
        let version = s.field(&format!("node/{NODE}"), "{.status.nodeInfo.containerRuntimeVersion}")?;
        ensure!(version.starts_with("berth://"), "{version}");
        serves_again(s)?;
        let crictl = chart.crictl()?;
        assert_eq!(agents(&crictl)?, 1, "the installer's pod runs on what it has installed");
        s.until(|| old.run(&["pods", "--quiet"]), String::is_empty)?;
        s.start("undisturbed", alone(sleeper()))?;
        let pod = chart.undisturbed(&crictl, "undisturbed")?;

        let daemon = chart.daemon();
        chart.release("upgrade", IMAGES[1], &[])?;
        chart.rolled_out()?;
        ensure!(daemon != chart.daemon() && chart.daemon().is_some(), "{daemon:?} was not replaced");
        assert_eq!(chart.undisturbed(&crictl, "undisturbed")?, pod);

        // A release that is told to leave nodes as they are does so, and another one finds them.
        chart.release("upgrade", IMAGES[1], &["uninstall=keep"])?;
        chart.rolled_out()?;
        let daemon = chart.daemon();
        chart.uninstall()?;
        s.until(|| agents(&crictl), |left| *left == 0)?;
        assert_eq!((chart.daemon(), chart.undisturbed(&crictl, "undisturbed")?), (daemon, pod.clone()));
        chart.release("install", IMAGES[1], &[])?;
        chart.rolled_out()?;
        assert_eq!((chart.daemon(), chart.undisturbed(&crictl, "undisturbed")?), (daemon, pod.clone()));

        chart.uninstall()?;
        ensure!(chart.kubelet_is_as_before()?, "the kubelet is still switched");
        assert_eq!(chart.daemon(), None);
        ensure!(!pod.runs(), "a pod of the runtime that is gone runs");
        assert_eq!(strange(&chart, &before, &[])?, [""; 0]);
        serves_again(s)?;
        chart.identity(&old, "witness").map(drop)
    })
}
