//! One pod sandbox: its fixed facts, its state, its record. The verbs are files of their own.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::spec::{PodLimits, PodSpec};
use crate::containers::Sandbox;
use crate::drivers::cgroup::PodCgroup;
use crate::drivers::network::Attachment;
use crate::drivers::store::Record;
use crate::ids::PodId;

/// A pod sandbox that exists.
pub struct Pod {
    /// What its containers see of it; holds the shim while it is ready.
    pub sandbox: Arc<Sandbox>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Of the last update; None = the request's.
    limits: Mutex<PodLimits>,
    /// Stop, update and remove exclude one another.
    pub(super) verb: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What a pod sandbox can be, as it is recorded. Starting is never seen by others: recovery undoes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum State {
    /// RunPodSandbox has begun to make things on the host.
    Starting,
    /// It has its namespaces, its shim and its network (None = the host's).
    Ready { network: Option<Attachment> },
    /// It was stopped, or its shim died. The network is set until it is taken apart.
    NotReady {
        network: Option<Attachment>,
        /// Nanoseconds since the epoch; 0 in records of earlier versions.
        #[serde(default)]
        since: i64,
    },
}

/// A pod sandbox as the store keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodRecord {
    pub(super) id: PodId,
    pub(super) spec: PodSpec,
    /// None until it was made.
    pub(super) cgroup: Option<PodCgroup>,
    pub(super) created_at: i64,
    /// Of the last update; None = the request's.
    #[serde(default)]
    pub(super) limits: PodLimits,
    pub(super) state: State,
}

impl Record for PodRecord {
    const TABLE: &'static str = "pods";
}

impl Pod {
    pub(super) fn new(sandbox: Sandbox, created_at: i64, state: State) -> Self {
        Self {
            sandbox: Arc::new(sandbox),
            created_at,
            limits: Mutex::default(),
            verb: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// Its id.
    pub fn id(&self) -> &PodId {
        &self.sandbox.id
    }

    /// `namespace/name`.
    pub fn name(&self) -> String {
        self.sandbox.name()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> PodRecord {
        PodRecord {
            id: self.id().clone(),
            spec: self.sandbox.spec.clone(),
            cgroup: Some(self.sandbox.cgroup.clone()),
            created_at: self.created_at,
            limits: self.updated_limits(),
            state: self.state().clone(),
        }
    }

    fn updated_limits(&self) -> PodLimits {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_limits(&self, limits: PodLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// What the whole pod may take: as requested, or as the last update says.
    pub fn limits(&self) -> PodLimits {
        let (spec, updated) = (&self.sandbox.spec, self.updated_limits());
        PodLimits {
            overhead: updated.overhead.or_else(|| spec.overhead.clone()),
            resources: updated.resources.or_else(|| spec.resources.clone()),
        }
    }

    /// May it have containers?
    pub fn is_ready(&self) -> bool {
        matches!(*self.state(), State::Ready { .. })
    }

    /// Since when it is ready, or not any more: nanoseconds since the epoch, 0 if that is not known.
    pub fn since(&self) -> i64 {
        match *self.state() {
            State::NotReady { since, .. } => since,
            _ => self.created_at,
        }
    }

    /// Its own addresses, the primary one first; none in the host's network, or once it was stopped.
    pub fn ips(&self) -> Vec<IpAddr> {
        match &*self.state() {
            State::Ready { network: Some(network) } | State::NotReady { network: Some(network), .. } => {
                network.ips.clone()
            }
            _ => Vec::new(),
        }
    }

    /// Its own network; None = the host's, or none any more.
    pub fn network(&self) -> Option<Attachment> {
        match &*self.state() {
            State::Ready { network } | State::NotReady { network, .. } => network.clone(),
            State::Starting => None,
        }
    }
}
