//! One container: its fixed facts, its state behind a lock, its record. The verbs are files of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::Span;

use super::gauges::{Gauges, WritableLayer};
use super::sandbox::Sandbox;
use super::signal::SIGTERM;
use super::spec::{ContainerSpec, Resources};
use super::state::{Phase, State};
use super::user::User;
use crate::drivers::cgroup::ContainerCgroup;
use crate::drivers::store::Record;
use crate::ids::{ContainerId, Digest, PodId};
use crate::images::Hold;
use crate::telemetry::subject;

/// What of an image a container keeps: enough to answer after the image's names have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUse {
    /// The image's one id.
    pub id: Digest,
    /// A name by digest, or the id where it has none.
    pub reference: String,
    /// Layers of the root, bottom first.
    pub layers: Vec<Digest>,
    /// STOPSIGNAL as a number; None = not given, or no signal.
    pub stop_signal: Option<i32>,
}

/// A container that exists.
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: Arc<Sandbox>,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// What it runs from.
    pub image: ImageUse,
    /// What its image volumes show, in the request's order.
    pub volumes: Vec<ImageUse>,
    /// Who runs it.
    pub user: User,
    /// Its control group.
    pub cgroup: ContainerCgroup,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Limits in force: the request's, or those of the last update.
    resources: Mutex<Resources>,
    /// What the last update said beside its limits.
    update_annotations: Mutex<BTreeMap<String, String>>,
    /// Start, update and remove exclude one another.
    pub(super) verb: tokio::sync::Mutex<()>,
    /// Held from making a record of a state to making that state visible: an end and an update may coincide.
    pub(super) recording: tokio::sync::Mutex<()>,
    pub(super) ended: watch::Sender<bool>,
    /// What is remembered between two answers about usage.
    pub(super) gauges: Arc<Gauges>,
    /// Keep the images' layers on disk for as long as the container exists.
    _images: Vec<Hold>,
    state: Mutex<State>,
    /// Its process as config.json has it, once an exec has needed it.
    process: OnceLock<Arc<Process>>,
}

/// A container as the store keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub(super) id: ContainerId,
    pub(super) pod: PodId,
    pub(super) spec: ContainerSpec,
    pub(super) image: ImageUse,
    #[serde(default)]
    pub(super) volumes: Vec<ImageUse>,
    pub(super) user: User,
    pub(super) cgroup: ContainerCgroup,
    pub(super) created_at: i64,
    pub(super) resources: Resources,
    #[serde(default)]
    pub(super) update_annotations: BTreeMap<String, String>,
    pub(super) phase: Phase,
}

impl Record for ContainerRecord {
    const TABLE: &'static str = "containers";
}

impl ContainerRecord {
    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The pod it belongs to.
    pub fn pod(&self) -> &PodId {
        &self.pod
    }
}

impl Container {
    pub(super) fn from_record(record: ContainerRecord, sandbox: Arc<Sandbox>, images: Vec<Hold>) -> Self {
        let exited = matches!(record.phase, Phase::Exited(_));
        Self {
            id: record.id,
            sandbox,
            spec: record.spec,
            image: record.image,
            volumes: record.volumes,
            user: record.user,
            cgroup: record.cgroup,
            created_at: record.created_at,
            resources: Mutex::new(record.resources),
            update_annotations: Mutex::new(record.update_annotations),
            verb: tokio::sync::Mutex::default(),
            recording: tokio::sync::Mutex::default(),
            ended: watch::Sender::new(exited),
            gauges: Arc::default(),
            _images: images,
            state: Mutex::new(record.phase.into()),
            process: OnceLock::new(),
        }
    }

    pub(super) fn record(&self) -> ContainerRecord {
        ContainerRecord {
            id: self.id.clone(),
            pod: self.sandbox.id.clone(),
            spec: self.spec.clone(),
            image: self.image.clone(),
            volumes: self.volumes.clone(),
            user: self.user.clone(),
            cgroup: self.cgroup.clone(),
            created_at: self.created_at,
            resources: self.resources(),
            update_annotations: self.update_annotations(),
            phase: self.phase(),
        }
    }

    /// For lines about what happens to it without a call, or may outlive one.
    pub fn span(&self) -> Span {
        let pod = (&self.sandbox.spec.metadata, &self.sandbox.id);
        subject::container(pod, &self.spec, &self.id)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `namespace/pod/name`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.sandbox.name(), self.spec.metadata.name)
    }

    /// What it is now.
    pub fn phase(&self) -> Phase {
        self.state().phase()
    }

    /// What it is now, unless it is changing at this moment.
    pub fn settled_phase(&self) -> Option<Phase> {
        match self.state.try_lock() {
            Ok(state) => Some(state.phase()),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner().phase()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Limits in force.
    pub fn resources(&self) -> Resources {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the last update said beside its limits.
    pub fn update_annotations(&self) -> BTreeMap<String, String> {
        self.update_annotations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other limits in place, once they are in force and on record.
    pub(super) fn set_resources(&self, resources: Resources, annotations: BTreeMap<String, String>) {
        *self.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
        *self.update_annotations.lock().unwrap_or_else(PoisonError::into_inner) = annotations;
    }

    /// What its writable layer occupied at the last look, if there was one.
    pub fn writable_layer(&self) -> Option<WritableLayer> {
        self.gauges.disk().known
    }

    /// What it is asked to stop with: the request's signal, else the image's, else SIGTERM.
    pub fn stop_signal(&self) -> i32 {
        self.spec.stop_signal.or(self.image.stop_signal).unwrap_or(SIGTERM)
    }

    /// What further processes in it are like; read once, by `read`.
    pub(super) fn process<E>(&self, read: impl FnOnce() -> Result<Process, E>) -> Result<Arc<Process>, E> {
        match self.process.get() {
            Some(process) => Ok(process.clone()),
            None => {
                let process = Arc::new(read()?);
                Ok(self.process.get_or_init(|| process).clone())
            }
        }
    }

    /// Waits until its process has ended; at once if it has none.
    pub(super) async fn until_ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as self.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
