//! Transient scopes of systemd. What does not live here: anything below a scope, and talking to systemd.
//!
//! One scope a pod: one call is cheap, and with `Delegate=yes` systemd never rewrites what is below. cgroups-rs makes the
//! properties; its client is not used, because it blocks and returns before the scope exists (it does not wait for the
//! job). Each call has a connection of its own: none can be stale after the bus or systemd was started again.

use cgroups_rs::systemd::props::PropertiesBuilder;
use zbus::zvariant::Value;

pub(super) use crate::drivers::systemd::runs_host;
use crate::drivers::systemd::{PATIENCE, Systemd};

use super::error::CgroupError;

/// Starts a scope with one process in a slice and waits until it is there. One that exists is fine.
pub(super) async fn start_scope(unit: &str, slice: &str, pid: i32) -> Result<(), CgroupError> {
    let mut properties = PropertiesBuilder::default_cgroup(slice, unit)
        .description("Berth pod".into())
        .pids(vec![pid.unsigned_abs()])
        .build();
    // A failed scope must not stay in memory, and the manager's default limit of tasks is not meant for pods.
    properties.push(("CollectMode", Value::from("inactive-or-failed")));
    properties.push(("TasksMax", Value::from(u64::MAX)));
    let auxiliary: Vec<(String, Vec<(String, Value<'_>)>)> = Vec::new();
    let body = (unit, "fail", properties, auxiliary);
    match Systemd::connect().await?.job("StartTransientUnit", unit, &body, PATIENCE).await {
        Err(error) if error.is("UnitExists") => Ok(()),
        result => Ok(result?),
    }
}

/// Stops a scope; one that is gone is fine.
pub(super) async fn stop_scope(unit: &str) -> Result<(), CgroupError> {
    match Systemd::connect().await?.job("StopUnit", unit, &(unit, "replace"), PATIENCE).await {
        Err(error) if error.is("NoSuchUnit") => Ok(()),
        result => Ok(result?),
    }
}
