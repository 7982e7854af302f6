//! ReopenContainerLog, after the kubelet has moved the log away.

use super::state::Phase;
use super::{Cause, ContainerError, Containers};

impl Containers {
    /// Returns once the new file exists; an error makes no file.
    pub async fn reopen_log(&self, id: &str) -> Result<(), ContainerError> {
        let container = self.find(id)?;
        let fail = |cause: Cause| cause.of(&container.id);
        if !matches!(container.phase(), Phase::Running(_)) {
            return Err(fail(Cause::State { is: container.phase().describe(), wanted: "running" }));
        }
        if container.spec.log_path.is_none() {
            return Err(fail(Cause::NoLog));
        }
        let shim =
            container.sandbox.shim().ok_or_else(|| Cause::SandboxNotReady(container.sandbox.id.clone()));
        shim.map_err(fail)?.reopen_log(container.id.as_str()).await.map_err(|e| fail(e.into()))
    }
}
