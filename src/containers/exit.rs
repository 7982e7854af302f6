//! The end of a container or an exec, as the shim tells it: classified, recorded, then made known.

use std::sync::Arc;

use berth_proto::shim::v1;
use tracing::Instrument;

use super::state::{Exit, Exited, Reason, Run, State};
use super::{Container, Containers};
use crate::activity::{self, Verb};
use crate::drivers::store::Durability;
use crate::error::chain;
use crate::events::Happening;
use crate::ids::ContainerId;
use crate::telemetry::METRICS;

impl Containers {
    /// Takes what a shim saw; unknown containers and execs are ignored.
    pub async fn on_exit(&self, exited: v1::Exited) {
        if !exited.exec_id.is_empty() {
            return self.execs.end(&exited.exec_id, exited.exit_code);
        }
        let exit = Exit { code: exited.exit_code, finished_at: exited.finished_at };
        let Ok(id) = ContainerId::parse(&exited.container_id) else {
            return;
        };
        let container = self.table().get(&id).cloned();
        if let Some(container) = container {
            let end = self.end(&container, exit).instrument(container.span());
            activity::track(Verb::ContainerExit, container.name(), id.as_str(), end).await;
        }
    }

    /// Makes a container Exited, if it is not already.
    pub(super) async fn end(&self, container: &Arc<Container>, exit: Exit) {
        let run = {
            let mut state = container.state();
            match &mut *state {
                State::Running(run) => *run,
                State::Starting { ended } => {
                    *ended = Some(exit);
                    return;
                }
                State::Created { .. } | State::Exited(_) => return,
            }
        };
        self.end_run(container, run, exit).await;
    }

    /// Processes that outlive the first one (a PID namespace shared with others) end with it.
    pub(super) async fn end_run(&self, container: &Arc<Container>, run: Run, exit: Exit) {
        let oom_kills = self.drivers.cgroups.oom_kills(&container.cgroup).unwrap_or(0);
        // What had ended before the daemon began has been counted.
        if !*container.ended.borrow() {
            METRICS.oom_kills.inc_by(oom_kills);
        }
        if let Err(error) = self.drivers.cgroups.kill(&container.cgroup).await {
            tracing::warn!(error = chain(&error), "cannot kill what the container left behind");
        }
        self.set_exited(
            container,
            Exited {
                started_at: run.started_at,
                exit,
                reason: Reason::of(exit, oom_kills > 0),
                message: String::new(),
            },
        )
        .await;
    }

    /// Recorded before anybody can see it.
    pub(super) async fn set_exited(&self, container: &Arc<Container>, exited: Exited) {
        let _recording = container.recording.lock().await;
        let mut record = container.record();
        record.phase = super::state::Phase::Exited(exited.clone());
        if let Err(error) = self.drivers.store.put(container.id.as_str(), &record, Durability::Process).await
        {
            tracing::error!(error = chain(&error), "cannot record the container's end");
        }
        let mut turn = self.events.turn();
        *container.state() = State::Exited(exited);
        turn.tell(Happening::Stopped, &container.id, &container.sandbox.id);
        drop(turn);
        container.ended.send_replace(true);
    }
}
