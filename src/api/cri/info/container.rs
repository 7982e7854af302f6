//! The verbose info of a container.

use serde_json::{Value, json};

use super::{Info, RUNTIME, SNAPSHOTTER, info, pod, request};
use crate::activity::{self, Verb};
use crate::containers::Container;
use crate::containers::state::Phase;
use crate::drivers::Drivers;

/// A container's process, cgroup, layers, request and OCI runtime spec.
pub(in crate::api::cri) fn container(drivers: &Drivers, container: &Container) -> Info {
    let pid = if let Phase::Running(run) = container.phase() { run.pid } else { 0 };
    let (layout, id) = (&drivers.layout, &container.id);
    let layers: Vec<_> = container.image.layers.iter().rev().map(|layer| layout.layer(layer)).collect();
    let removing = |doing: &activity::Doing| doing.verb == Verb::RemoveContainer && doing.id == id.as_str();
    info(&json!({
        "sandboxID": container.sandbox.id,
        "pid": pid,
        "removing": activity::list().iter().any(removing),
        "snapshotKey": id,
        "snapshotter": SNAPSHOTTER,
        "runtimeType": RUNTIME,
        "privileged": container.spec.security.privileged,
        "cgroup": container.cgroup.path(),
        "bundle": layout.bundle(id),
        "snapshot": layout.snapshot(id),
        "layers": layers,
        "rootfs": {
            "type": "overlay",
            "imageID": container.image.id,
            "lower": rootfs_layers(drivers, container),
            "upper": layout.upper(id),
            "work": layout.work(id),
        },
        "writableLayer": container.writable_layer().map(|layer| json!({
            "usedBytes": layer.usage.bytes,
            "inodesUsed": layer.usage.inodes,
            "at": crate::clock::rfc3339(layer.at),
        })),
        "config": request::container(&container.spec),
        "resources": container.resources(),
        "updateAnnotations": container.update_annotations(),
        "user": { "uid": container.user.uid, "gid": container.user.gid, "groups": container.user.groups },
        "runtimeSpec": runtime_spec(drivers, container),
    }))
}

/// As overlay stacks them: the top one first.
fn rootfs_layers(drivers: &Drivers, container: &Container) -> Vec<Value> {
    let layer = |id| json!({ "id": id, "path": drivers.layout.layer(id) });
    container.image.layers.iter().rev().map(layer).collect()
}

/// config.json, and in its list of namespaces those of the pod, which the container gets by being the shim's child.
fn runtime_spec(drivers: &Drivers, container: &Container) -> Value {
    let Ok(spec) = drivers.bundles.read_config(&container.id) else { return Value::Null };
    let mut spec = json!(spec);
    if let (Some(shim), Some(namespaces)) =
        (container.sandbox.shim(), spec["linux"]["namespaces"].as_array_mut())
    {
        let own = |kind: &Value| namespaces.iter().any(|own| own["type"] == *kind);
        let joined = pod::namespaces(drivers, &container.sandbox, shim.pid());
        let joined: Vec<_> = joined.into_iter().filter(|joined| !own(&joined["type"])).collect();
        namespaces.extend(joined);
    }
    spec
}
