//! What crictl shows beyond the contract: Status, and the verbose info of pods and containers.

use std::collections::BTreeMap;

use berth_proto::cri::v1;
use serde_json::json;
use tonic::Status;

use super::Services;
use crate::api::metrics::Listening;
use crate::containers::Container;
use crate::containers::state::Phase;
use crate::drivers::Drivers;
use crate::drivers::apparmor::{self, Apparmor};
use crate::drivers::cgroup::Driver;
use crate::pods::Pod;

type Info = BTreeMap<String, String>;

/// The node's conditions.
pub(super) async fn status(services: &Services, verbose: bool) -> v1::StatusResponse {
    let drivers = &services.drivers;
    let ready = v1::RuntimeCondition { r#type: "RuntimeReady".into(), status: true, ..Default::default() };
    let mut network =
        v1::RuntimeCondition { r#type: "NetworkReady".into(), status: true, ..Default::default() };
    if let Err(not_ready) = drivers.network.ready().await {
        network.status = false;
        network.reason = not_ready.reason.to_string();
        network.message = not_ready.message;
    }
    let user_namespaces = drivers.layers.maps_ids().is_ok();
    let metrics = services.metrics.listening();
    let info = if verbose { node(drivers, &metrics) } else { Info::new() };
    let conditions = [ready, network].into_iter().chain(condition(metrics)).collect();
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus { conditions }),
        info,
        runtime_handlers: vec![v1::RuntimeHandler {
            name: String::new(),
            features: Some(v1::RuntimeHandlerFeatures {
                recursive_read_only_mounts: drivers.host.sets_mounts_recursively(),
                user_namespaces,
            }),
        }],
        features: Some(v1::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: user_namespaces,
            mount_options: true,
        }),
    }
}

/// Whether metrics are served, if they should be. The kubelet passes over conditions that it does not know.
fn condition(metrics: Listening) -> Option<v1::RuntimeCondition> {
    let condition =
        v1::RuntimeCondition { r#type: "MetricsReady".into(), status: true, ..Default::default() };
    match metrics {
        Listening::Off => None,
        Listening::At(_) => Some(condition),
        Listening::Failed { address, error, since } => {
            let since = httpdate::fmt_http_date(since);
            let (reason, message) =
                ("AddressUnavailable".into(), format!("cannot listen at {address} since {since}: {error}"));
            Some(v1::RuntimeCondition { status: false, reason, message, ..condition })
        }
    }
}

fn node(drivers: &Drivers, metrics: &Listening) -> Info {
    let metrics =
        if let Listening::At(address) = metrics { Some(format!("http://{address}/metrics")) } else { None };
    let config = json!({
        "rootDir": drivers.layout.root(),
        "stateDir": drivers.layout.state(),
        "cgroupDriver": format!("{:?}", drivers.cgroups.driver()).to_lowercase(),
        "userNamespaces": drivers.layers.maps_ids().err().map_or(json!(true), |why| json!(why)),
        "apparmor": apparmor(&drivers.apparmor),
        "selinux": drivers.host.selinux,
        "metrics": metrics,
        "cgroupMode": format!("{:?}", drivers.cgroups.mode()).to_lowercase(),
    });
    Info::from([("config".to_string(), config.to_string())])
}

/// The profile of RuntimeDefault, or why there is none.
fn apparmor(found: &Apparmor) -> String {
    match found {
        Apparmor::Off => "off".to_string(),
        Apparmor::On { default: Ok(()) } => apparmor::DEFAULT.to_string(),
        Apparmor::On { default: Err(error) } => crate::error::chain(error),
    }
}

/// The cgroup driver that the kubelet must use too.
pub(super) fn runtime_config(drivers: &Drivers) -> v1::RuntimeConfigResponse {
    let driver = match drivers.cgroups.driver() {
        Driver::Systemd => v1::CgroupDriver::Systemd,
        _ => v1::CgroupDriver::Cgroupfs,
    };
    v1::RuntimeConfigResponse { linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }) }
}

/// A pod's process, cgroup, network and request.
pub(super) fn pod(drivers: &Drivers, pod: &Pod) -> Result<Info, Status> {
    let sandbox = &pod.sandbox;
    let info = json!({
        "pid": sandbox.shim().map_or(0, |shim| shim.pid()),
        "cgroup": sandbox.cgroup.path(),
        "netns": drivers.layout.network_namespace(&sandbox.id),
        "network": pod.network(),
        "config": sandbox.spec,
        "limits": pod.limits(),
    });
    Ok(Info::from([("info".to_string(), info.to_string())]))
}

/// A container's process, cgroup, layers, request and OCI runtime spec.
pub(super) fn container(drivers: &Drivers, container: &Container) -> Result<Info, Status> {
    let pid = if let Phase::Running(run) = container.phase() { run.pid } else { 0 };
    let spec = drivers.bundles.read_config(&container.id).ok();
    let info = json!({
        "pid": pid,
        "sandboxID": container.sandbox.id,
        "cgroup": container.cgroup.path(),
        "snapshot": drivers.layout.snapshot(&container.id),
        "layers": container.image.layers.iter().rev().map(|id| drivers.layout.layer(id)).collect::<Vec<_>>(),
        "config": container.spec,
        "resources": container.resources(),
        "updateAnnotations": container.update_annotations(),
        "runtimeSpec": spec,
    });
    Ok(Info::from([("info".to_string(), info.to_string())]))
}
