//! StartContainer: the shim spawns the process; the call returns once the workload is executing.

use std::os::fd::AsFd;
use std::sync::Arc;

use berth_proto::shim::v1;
use tracing::Instrument;

use super::spec::PidMode;
use super::state::{Exit, Exited, Mounted, Reason, Run, State};
use super::{Cause, Container, ContainerError, Containers};
use crate::activity::{self, Verb};
use crate::clock;
use crate::drivers::layers::View;
use crate::drivers::shim::{Shim, ShimError};
use crate::drivers::store::Durability;
use crate::error::chain;
use crate::events::Happening;
use crate::telemetry::{Stage, stage};

/// The exit code of a container that never ran, as others in the field give it.
const NEVER_RAN: i32 = 128;

impl Containers {
    /// Runs in a task of its own, so that a caller who goes away does not leave half a container.
    pub async fn start(self: &Arc<Self>, id: &str) -> Result<(), ContainerError> {
        let container = self.find(id)?;
        let (this, task) = (self.clone(), container.clone());
        let start = async move { stage(Stage::ContainerStart, this.start_one(&task)).await };
        let (verb, id) = (Verb::StartContainer, container.id.as_str());
        let started = tokio::spawn(activity::track(verb, container.name(), id, start).in_current_span());
        started.await.unwrap_or(Err(Cause::Stopping)).map_err(|cause| cause.of(&container.id))
    }

    async fn start_one(&self, container: &Arc<Container>) -> Result<(), Cause> {
        let _verb = activity::lock(&container.verb, "container").await;
        activity::step("root");
        let shim =
            container.sandbox.shim().ok_or_else(|| Cause::SandboxNotReady(container.sandbox.id.clone()))?;
        let mounted = self.take_mounted(container)?;
        activity::step("process");
        match self.spawn(container, &shim, mounted).await {
            Ok(started) => self.set_running(container, started).await,
            Err(cause) => {
                // Where the shim gave no answer, the process may be there after all.
                if !matches!(cause, Cause::Shim(ShimError::Refused { .. })) {
                    self.drivers.cgroups.kill(&container.cgroup).await?;
                }
                self.never_ran(container, &cause).await;
                Err(cause)
            }
        }
    }

    /// Created becomes Starting; any other state refuses.
    fn take_mounted(&self, container: &Container) -> Result<Mounted, Cause> {
        let mut state = container.state();
        let State::Created { mounted } = &mut *state else {
            return Err(Cause::State { is: state.phase().describe(), wanted: "created" });
        };
        let mounted = match mounted.take() {
            Some(mounted) => mounted,
            None => {
                let label = self.file_label(&container.sandbox, &container.spec.security);
                let user = container.sandbox.spec.namespaces.user.as_ref();
                let view = View { user, label: label.as_deref() };
                let root = self.mount_root(&container.id, &container.image, view)?;
                let volumes = self.mount_volumes(&container.spec, &container.volumes, view)?;
                Mounted { root, volumes }
            }
        };
        *state = State::Starting { ended: None };
        Ok(mounted)
    }

    async fn spawn(
        &self,
        container: &Container,
        shim: &Shim,
        mounted: Mounted,
    ) -> Result<v1::Started, Cause> {
        let layout = &self.drivers.layout;
        let filter = self.seccomp_filter(&container.spec.security)?;
        let (pid, pid_target) = pid_mode(&container.spec.security.pid);
        let start = v1::Start {
            container_id: container.id.to_string(),
            bundle: layout.bundle(&container.id).to_string_lossy().into_owned(),
            has_seccomp: filter.is_some(),
            cgroups: container.cgroup.join_dirs(),
            cgroup_v2: container.cgroup.v2(),
            log_path: container
                .spec
                .log_path
                .as_ref()
                .map_or_else(String::new, |p| p.to_string_lossy().into_owned()),
            stdin: container.spec.stdin,
            stdin_once: container.spec.stdin_once,
            terminal: container.spec.tty,
            pid: pid.into(),
            pid_target,
            exit_path: layout.exit_record(&container.id).to_string_lossy().into_owned(),
            seccomp_flags: filter.as_ref().map_or_else(Vec::new, |filter| filter.flags.clone()),
            image_volumes: u32::try_from(mounted.volumes.len()).unwrap_or(u32::MAX),
        };
        let filter = filter.as_ref().map(|filter| filter.fd.as_fd());
        let volumes: Vec<_> = mounted.volumes.iter().map(AsFd::as_fd).collect();
        Ok(shim.start(start, mounted.root.as_fd(), filter, &volumes).await?)
    }

    async fn set_running(&self, container: &Arc<Container>, started: v1::Started) -> Result<(), Cause> {
        let run = Run { pid: started.pid, started_at: started.started_at };
        activity::step("record");
        let mut record = container.record();
        record.phase = super::state::Phase::Running(run);
        // A failure to record is no failure to run: the shim itself is the record that recovery trusts.
        if let Err(error) = self.drivers.store.put(container.id.as_str(), &record, Durability::Process).await
        {
            tracing::error!(error = chain(&error), "cannot record that the container runs");
        }
        let ended = {
            let mut turn = self.events.turn();
            let starting = std::mem::replace(&mut *container.state(), State::Running(run));
            turn.tell(Happening::Started, &container.id, &container.sandbox.id);
            if let State::Starting { ended } = starting { ended } else { None }
        };
        if let Some(exit) = ended {
            self.end_run(container, run, exit).await;
        }
        Ok(())
    }

    async fn never_ran(&self, container: &Arc<Container>, cause: &Cause) {
        let message = match cause {
            Cause::Shim(ShimError::Refused { message, .. }) => message.clone(),
            cause => chain(cause),
        };
        let exit = Exit { code: NEVER_RAN, finished_at: clock::now() };
        let exited = Exited { started_at: 0, exit, reason: Reason::StartError, message };
        self.set_exited(container, exited).await;
    }
}

fn pid_mode(pid: &PidMode) -> (v1::PidMode, String) {
    match pid {
        PidMode::Container => (v1::PidMode::Container, String::new()),
        PidMode::Pod => (v1::PidMode::Pod, String::new()),
        PidMode::Node => (v1::PidMode::Node, String::new()),
        PidMode::Target(container) => (v1::PidMode::Target, container.to_string()),
    }
}
