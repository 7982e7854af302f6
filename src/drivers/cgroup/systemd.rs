//! Transient scopes by D-Bus. What does not live here: anything below a scope.
//!
//! One scope a pod: one call is cheap, and with `Delegate=yes` systemd never rewrites what is below. cgroups-rs makes the
//! properties; its client is not used, because it blocks and returns before the scope exists (it does not wait for the
//! job). The system bus and not /run/systemd/private: zbus 5 does not take the sender that systemd names there.

use std::path::Path;
use std::time::Duration;

use cgroups_rs::systemd::props::PropertiesBuilder;
use futures_util::StreamExt;
use zbus::zvariant::{DynamicType, OwnedObjectPath, Value};
use zbus::{Connection, MessageStream};

use super::error::CgroupError;

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
/// How long systemd may take for a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether systemd is the host's init (sd_booted(3)).
pub(super) fn runs_host() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

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
    match job("StartTransientUnit", unit, &(unit, "fail", properties, auxiliary)).await {
        Err(CgroupError::Systemd { source, .. }) if is(&source, "UnitExists") => Ok(()),
        result => result,
    }
}

/// Stops a scope; one that is gone is fine.
pub(super) async fn stop_scope(unit: &str) -> Result<(), CgroupError> {
    match job("StopUnit", unit, &(unit, "replace")).await {
        Err(CgroupError::Systemd { source, .. }) if is(&source, "NoSuchUnit") => Ok(()),
        result => result,
    }
}

fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, ..) if found.strip_prefix(NAME).is_some_and(|n| n.strip_prefix('.') == Some(name)))
}

/// Calls a method that returns a job and waits for the job's end. Each call has a connection of its own: none can
/// be stale after the bus or systemd was started again.
async fn job<B>(call: &'static str, unit: &str, body: &B) -> Result<(), CgroupError>
where
    B: serde::Serialize + DynamicType + Sync,
{
    let refused = |source| CgroupError::Systemd { call, unit: unit.into(), source: Box::new(source) };
    let result = match tokio::time::timeout(PATIENCE, run(call, body)).await {
        Ok(result) => result.map_err(refused)?,
        Err(_) => "no answer in 30 seconds".to_string(),
    };
    if result == "done" { Ok(()) } else { Err(CgroupError::Job { unit: unit.into(), result }) }
}

async fn run<B>(call: &'static str, body: &B) -> zbus::Result<String>
where
    B: serde::Serialize + DynamicType + Sync,
{
    let connection = Connection::system().await?;
    let rule = zbus::MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .interface(MANAGER)?
        .member("JobRemoved")?
        .build();
    // Made before the call: the job may end before its reply is read.
    let mut messages = MessageStream::for_match_rule(rule, &connection, None).await?;
    connection.call_method(Some(NAME), OBJECT, Some(MANAGER), "Subscribe", &()).await?;
    let reply = connection.call_method(Some(NAME), OBJECT, Some(MANAGER), call, body).await?;
    let job: OwnedObjectPath = reply.body().deserialize()?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let (_, removed, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
        if removed == job {
            return Ok(result);
        }
    }
    Ok("connection closed".into())
}
