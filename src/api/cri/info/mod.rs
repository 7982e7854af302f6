//! What crictl shows beyond the contract: Status, and the verbose `info` of the node, pods, containers and images, in the
//! shapes that tools know from containerd and CRI-O. A file for each noun.

mod container;
mod image;
mod pod;
mod request;

use std::collections::BTreeMap;

use berth_proto::cri::v1;
use serde_json::{Value, json};

pub(super) use container::container;
pub(super) use image::image;
pub(super) use pod::pod;

use super::Services;
use crate::api::metrics::Listening;
use crate::clock;
use crate::drivers::Drivers;
use crate::drivers::apparmor::{self, Apparmor};
use crate::drivers::cgroup::Driver;
use crate::health::{Condition, Wrong};

/// JSON by name.
pub(super) type Info = BTreeMap<String, String>;

/// What `runtimeType` and `snapshotter` say.
const RUNTIME: &str = "berth";
const SNAPSHOTTER: &str = "overlayfs";

fn info(value: &Value) -> Info {
    Info::from([("info".to_string(), value.to_string())])
}

/// The node's conditions.
pub(super) async fn status(services: &Services, verbose: bool) -> v1::StatusResponse {
    let drivers = &services.drivers;
    let conditions = services.conditions().await;
    let user_namespaces = drivers.layers.maps_ids().is_ok();
    let features = v1::RuntimeHandlerFeatures {
        recursive_read_only_mounts: drivers.host.sets_mounts_recursively(),
        user_namespaces,
    };
    let info = if verbose { node(services, &conditions) } else { Info::new() };
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus { conditions: conditions.iter().map(condition).collect() }),
        info,
        runtime_handlers: services.config.pods.names().map(|name| handler(name, features)).collect(),
        features: Some(v1::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: user_namespaces,
            mount_options: true,
        }),
    }
}

/// All names are of one runtime.
fn handler(name: &str, features: v1::RuntimeHandlerFeatures) -> v1::RuntimeHandler {
    v1::RuntimeHandler { name: name.into(), features: Some(features) }
}

fn condition(condition: &Condition) -> v1::RuntimeCondition {
    let since = clock::rfc3339(condition.since);
    let (reason, message) = match &condition.wrong {
        None => (String::new(), format!("since {since}")),
        Some(wrong) => (wrong.reason.to_string(), format!("{} (since {since})", wrong.message)),
    };
    let status = condition.wrong.is_none();
    v1::RuntimeCondition { r#type: condition.name.into(), status, reason, message }
}

impl Services {
    /// All that is well or not; the kubelet passes over those that it does not know.
    pub async fn conditions(&self) -> Vec<Condition> {
        let mut conditions = self.health.conditions().await;
        conditions.extend(self.metrics_condition());
        conditions
    }

    /// Whether metrics are served, if they should be.
    fn metrics_condition(&self) -> Option<Condition> {
        let (wrong, since) = match self.metrics.listening() {
            Listening::Off => return None,
            Listening::At(_) => (None, self.started),
            Listening::Failed { address, error, since } => {
                let message = format!("cannot listen at {address}: {error}");
                (Some(Wrong { reason: "AddressUnavailable", message }), since)
            }
        };
        let ago = since.elapsed().unwrap_or_default();
        let since = clock::now() - i64::try_from(ago.as_nanos()).unwrap_or(0);
        Some(Condition { name: "MetricsReady", wrong, since })
    }
}

fn node(services: &Services, conditions: &[Condition]) -> Info {
    let drivers = &services.drivers;
    let metrics = match services.metrics.listening() {
        Listening::At(address) => Some(format!("http://{address}/metrics")),
        _ => None,
    };
    let config = json!({
        "rootDir": drivers.layout.root(),
        "stateDir": drivers.layout.state(),
        "cgroupDriver": format!("{:?}", drivers.cgroups.driver()).to_lowercase(),
        "cgroupMode": format!("{:?}", drivers.cgroups.mode()).to_lowercase(),
        "userNamespaces": drivers.layers.maps_ids().err().map_or(json!(true), |why| json!(why)),
        "apparmor": apparmor(&drivers.apparmor),
        "selinux": drivers.host.selinux,
        "metrics": metrics,
        "kernel": format!("{}.{}", drivers.host.kernel.0, drivers.host.kernel.1),
        "effective": *services.config,
    });
    let told = |condition: &Condition| {
        json!({
            "type": condition.name,
            "status": condition.wrong.is_none(),
            "reason": condition.wrong.as_ref().map_or("", |wrong| wrong.reason),
            "message": condition.wrong.as_ref().map_or("", |wrong| &wrong.message),
            "since": clock::rfc3339(condition.since),
        })
    };
    let conditions: Vec<Value> = conditions.iter().map(told).collect();
    let network =
        conditions.iter().find(|one| one["type"] == "NetworkReady").map(|one| match &one["message"] {
            Value::String(wrong) if !wrong.is_empty() => wrong.clone(),
            _ => "OK".to_string(),
        });
    Info::from([
        ("config".to_string(), config.to_string()),
        ("conditions".to_string(), Value::from(conditions).to_string()),
        ("lastCNILoadStatus".to_string(), network.unwrap_or_default()),
    ])
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
