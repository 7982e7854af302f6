//! StopContainer: the stop signal, the grace period, then SIGKILL for everything in its cgroup.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use super::state::{Phase, Run};
use super::{Cause, Container, ContainerError, Containers};
use crate::activity::{self, Verb};
use crate::drivers::shim::{Shim, ShimError};

const SIGKILL: i32 = 9;
/// How long a killed process may take to vanish: exit of a big address space, a slow disk.
const DEATH: Duration = Duration::from_secs(20);

impl Containers {
    /// Fine if it is unknown or not running. With no grace it is killed at once.
    pub async fn stop(self: &Arc<Self>, id: &str, grace: Duration) -> Result<(), ContainerError> {
        let container = match self.find(id) {
            Err(error) if matches!(*error.cause, Cause::Unknown) => return Ok(()),
            found => found?,
        };
        self.stop_container(&container, grace).await
    }

    /// As `stop`, in a task of its own.
    pub async fn stop_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Duration,
    ) -> Result<(), ContainerError> {
        let (this, task) = (self.clone(), container.clone());
        let stop = async move { this.stop_one(&task, grace).await };
        let (verb, id) = (Verb::StopContainer, container.id.as_str());
        let stopped = tokio::spawn(activity::track(verb, container.name(), id, stop).in_current_span());
        stopped.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(&container.id))
    }

    /// Several stops of one container run side by side: a later one with a shorter grace must not wait for the first.
    async fn stop_one(&self, container: &Container, grace: Duration) -> Result<(), Cause> {
        let Phase::Running(run) = container.phase() else {
            return Ok(());
        };
        let shim = container.sandbox.shim();
        if let (Some(shim), false) = (&shim, grace.is_zero()) {
            activity::step("grace period");
            match send(shim, container, container.stop_signal()).await {
                Ok(()) if tokio::time::timeout(grace, container.until_ended()).await.is_ok() => return Ok(()),
                // One that does not listen gets no second chance.
                Ok(()) | Err(Cause::Shim(ShimError::Timeout { .. })) => {}
                Err(cause) => return Err(cause),
            }
        }
        self.kill(container, shim.as_ref(), run).await
    }

    async fn kill(&self, container: &Container, shim: Option<&Shim>, run: Run) -> Result<(), Cause> {
        activity::step("kill");
        let told = match shim {
            Some(shim) => send(shim, container, SIGKILL).await,
            None => Ok(()),
        };
        // What runs dies even if the shim does not listen; only, nobody tells of its end then.
        self.drivers.cgroups.kill(&container.cgroup).await?;
        told?;
        let _waiting = activity::wait(|| format!("process {} to vanish", run.pid));
        match tokio::time::timeout(DEATH, container.until_ended()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Cause::Immortal {
                pid: run.pid,
                seconds: DEATH.as_secs(),
                wchan: crate::drivers::host::wchan(run.pid),
            }),
        }
    }
}

/// A process that has just ended can't be signalled, which is as well.
async fn send(shim: &Shim, container: &Container, signal: i32) -> Result<(), Cause> {
    const ESRCH: i32 = 3;
    match shim.signal(container.id.as_str(), "", signal).await {
        Ok(()) | Err(ShimError::Refused { errno: ESRCH, .. } | ShimError::Gone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
