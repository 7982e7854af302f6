//! After a start of the daemon: records of containers against what the shims know. The table of cases:
//!
//! | record     | shim knows it | becomes                                                              |
//! |------------|---------------|----------------------------------------------------------------------|
//! | any        | running       | running (a start that was never acknowledged included)               |
//! | any        | exited        | exited, with the shim's code and time                                |
//! | created    | no            | created; its root is mounted anew at start                           |
//! | running    | no, or gone   | exited: by the exit record, else code 255 and reason Unknown; killed |
//! | exited     | no            | exited                                                               |

use std::sync::Arc;

use berth_proto::shim::v1;
use tracing::Instrument;

use super::state::{Exit, Exited, Phase, Reason, Run, State};
use super::{Container, ContainerRecord, Containers, Sandbox};
use crate::clock;
use crate::error::chain;
use crate::ids::PodId;

/// The exit code of a container whose end nobody saw.
const UNSEEN: i32 = 255;

impl Containers {
    /// Takes over a container of a daemon before this one. `known` is what the pod's shim says of it.
    pub async fn adopt(
        &self,
        record: ContainerRecord,
        sandbox: Arc<Sandbox>,
        known: Option<&v1::state::Container>,
    ) {
        let images = std::iter::once(&record.image).chain(&record.volumes);
        let holds = images.filter_map(|image| self.images.hold(&image.id)).collect();
        let container = Arc::new(Container::from_record(record, sandbox, holds));
        self.table().insert(container.id.clone(), container.clone());
        let span = container.span();
        self.settle(&container, known).instrument(span).await;
    }

    async fn settle(&self, container: &Arc<Container>, known: Option<&v1::state::Container>) {
        match known {
            Some(known) if known.running => {
                *container.state() = State::Running(Run { pid: known.pid, started_at: known.started_at });
            }
            Some(known) => {
                let run = Run { pid: known.pid, started_at: known.started_at };
                let exited = known.exited.as_ref();
                let exit = exited.map(|e| Exit { code: e.exit_code, finished_at: e.finished_at });
                *container.state() = State::Running(run);
                self.end_run(container, run, exit.unwrap_or_else(unseen)).await;
            }
            None => self.adopt_unknown(container).await,
        }
    }

    /// Once all containers are adopted: what belongs to none of them goes.
    pub fn sweep(&self) {
        let known = self.table().keys().cloned().collect();
        if let Err(error) = self.drivers.bundles.sweep(&known) {
            tracing::warn!(error = chain(&error), "cannot remove what an earlier daemon left");
        }
    }

    async fn adopt_unknown(&self, container: &Arc<Container>) {
        let Phase::Running(run) = container.phase() else {
            return;
        };
        self.lose(container, run).await;
    }

    /// The shim of a pod has died under its containers: what its exit records do not tell is unknown.
    pub async fn on_shim_lost(&self, sandbox: &Sandbox) {
        for container in self.of_pod(&sandbox.id) {
            if let Phase::Running(run) = container.phase() {
                let span = container.span();
                self.lose(&container, run).instrument(span).await;
            }
        }
    }

    /// The connection to a live shim was lost and made again: what ended meanwhile is caught up with.
    pub async fn resync(&self, sandbox: &Sandbox, known: &[v1::state::Container]) {
        for container in self.of_pod(&sandbox.id) {
            let known = known.iter().find(|known| known.container_id == container.id.as_str());
            if let Some(v1::state::Container { exited: Some(exited), .. }) = known {
                let exit = Exit { code: exited.exit_code, finished_at: exited.finished_at };
                let span = container.span();
                self.end(&container, exit).instrument(span).await;
            }
        }
    }

    /// The connection to a pod's shim is gone, and with it the ends of the execs that it was asked for.
    pub fn on_connection_lost(&self, pod: &PodId) {
        self.execs.lose(pod);
    }

    async fn lose(&self, container: &Arc<Container>, run: Run) {
        if let Some(record) = self.drivers.bundles.exit_record(&container.id) {
            let exit = Exit { code: record.exit_code, finished_at: record.finished_at };
            return self.end_run(container, run, exit).await;
        }
        if let Err(error) = self.drivers.cgroups.kill(&container.cgroup).await {
            tracing::warn!(error = chain(&error), "cannot kill a container whose shim is gone");
        }
        let message = "the pod's shim is gone, and the exit code with it".to_string();
        let exited = Exited { started_at: run.started_at, exit: unseen(), reason: Reason::Unknown, message };
        self.set_exited(container, exited).await;
    }
}

fn unseen() -> Exit {
    Exit { code: UNSEEN, finished_at: clock::now() }
}
