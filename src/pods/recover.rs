//! After a start of the daemon: records of pods against live shims. The table of cases:
//!
//! | record    | shim answers | becomes                                                                  |
//! |-----------|--------------|--------------------------------------------------------------------------|
//! | starting  | any          | undone: nobody was told of it                                            |
//! | ready     | yes          | ready; its containers are adopted by what the shim says                  |
//! | ready     | no           | not ready; its containers' exit records count, what still lives is killed |
//! | not ready | any          | not ready; a shim that a crash left behind is ended                      |
//! | none      | yes          | the shim is ended                                                        |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use berth_proto::shim::v1;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::pod::State;
use super::{Pod, PodRecord, Pods};
use crate::activity::{self, Verb};
use crate::clock;
use crate::containers::{ContainerRecord, Sandbox};
use crate::drivers::cgroup::CgroupError;
use crate::drivers::shim::Shim;
use crate::drivers::store::{Durability, StoreError};
use crate::error::chain;
use crate::ids::PodId;
use crate::telemetry::{Leak, METRICS, subject};

impl Pods {
    /// Takes over the pods of a daemon before this one. A hung shim delays only its own pod.
    pub async fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        let (mut containers, whole) = self.container_records()?;
        let mut recovering = JoinSet::new();
        let mut known = HashSet::new();
        for (key, record) in self.drivers.store.load::<PodRecord>()? {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(pod_id = key, error = chain(&error), "pod is left out, and left alone");
                    known.extend(PodId::parse(&key).ok());
                    continue;
                }
            };
            known.insert(record.id.clone());
            let its_own = containers.remove(&record.id).unwrap_or_default();
            let (this, span) = (self.clone(), subject::pod(&record.spec.metadata, &record.id));
            recovering.spawn(async move { this.recover_one(record, its_own).await }.instrument(span));
        }
        while recovering.join_next().await.is_some() {}
        self.end_strangers(&known).await;
        // A damaged record may be that of a container that lives.
        if whole {
            self.containers.sweep();
        }
        let live =
            self.table().values().filter(|pod| pod.network().is_some()).map(|p| p.id().clone()).collect();
        if let Err(error) = self.drivers.network.reconcile(&live).await {
            tracing::warn!(
                error = chain(&error),
                "cannot give back all of the network of pods that are gone"
            );
        }
        Ok(())
    }

    /// By pod, and whether all could be read.
    fn container_records(&self) -> Result<(HashMap<PodId, Vec<ContainerRecord>>, bool), StoreError> {
        let mut of_pod: HashMap<PodId, Vec<ContainerRecord>> = HashMap::new();
        let mut whole = true;
        for (key, record) in self.drivers.store.load::<ContainerRecord>()? {
            match record {
                Ok(record) => of_pod.entry(record.pod().clone()).or_default().push(record),
                Err(error) => {
                    tracing::error!(container_id = key, error = chain(&error), "container is left out");
                    whole = false;
                }
            }
        }
        Ok((of_pod, whole))
    }

    async fn recover_one(self: Arc<Self>, record: PodRecord, containers: Vec<ContainerRecord>) {
        let found = self.drivers.shims.connect(&record.id).await;
        let (PodRecord { id, spec, created_at, limits, state, .. }, cgroup) =
            match (record.cgroup.clone(), &record.state) {
                (Some(cgroup), State::Ready { .. } | State::NotReady { .. }) => (record, cgroup),
                _ => return self.undo_start(record, found.ok().map(|(shim, _)| shim)).await,
            };
        let (shim, known, state) = match (found, state) {
            (Ok((shim, known)), state @ State::Ready { .. }) => (Some(shim), known.containers, state),
            (Ok((shim, _)), state) => {
                self.end_shim(&shim).await;
                (None, Vec::new(), state)
            }
            (Err(error), State::Ready { network }) => {
                // After a reboot there is not even its socket: nothing unexpected.
                if self.drivers.layout.shim_socket(&id).exists() {
                    METRICS.shim_exits.inc();
                }
                tracing::warn!(error = chain(&error), "the shim is gone: the pod is not ready any more");
                (None, Vec::new(), State::NotReady { network, since: clock::now() })
            }
            (Err(_), state) => (None, Vec::new(), state),
        };
        let pod = Arc::new(Pod::new(Sandbox::new(id, spec, cgroup, shim), created_at, state));
        pod.set_limits(limits);
        self.table().insert(pod.id().clone(), pod.clone());
        if let Err(error) =
            self.drivers.store.put(pod.id().as_str(), &pod.record(), Durability::Process).await
        {
            tracing::error!(error = chain(&error), "cannot record the pod");
        }
        self.adopt_all(&pod, containers, &known).await;
    }

    async fn adopt_all(&self, pod: &Pod, records: Vec<ContainerRecord>, known: &[v1::state::Container]) {
        for record in records {
            let id = record.id().clone();
            let known = known.iter().find(|known| known.container_id == id.as_str());
            self.containers.adopt(record, pod.sandbox.clone(), known).await;
        }
    }

    /// Nobody was told of this pod: it goes, as if it had never been asked for.
    async fn undo_start(&self, record: PodRecord, shim: Option<Shim>) {
        let id = &record.id;
        if let Some(shim) = shim {
            self.end_shim(&shim).await;
        }
        let network = self.network_of(id, &record.spec);
        let undone = async {
            let detached = self.drivers.network.detach(&network, None).await;
            Leak::Address.note_if_any(&detached);
            detached.map_err(|error| chain(&error))?;
            self.remove_files(id)?;
            let removed = self.remove_cgroup(&record).await;
            Leak::Cgroup.note_if_any(&removed);
            removed.map_err(|error| chain(&error))?;
            self.drivers.shims.remove_directory(id).map_err(|error| chain(&error))?;
            let deleted = self.drivers.store.delete::<PodRecord>(id.as_str(), Durability::Process).await;
            deleted.map_err(|error| chain(&error))
        };
        if let Err(error) = undone.await {
            tracing::warn!(error, "cannot undo all of a pod whose start was cut short");
        }
    }

    /// What a pod has on the host besides shim, cgroup and network, each thing counted if it was there.
    fn remove_files(&self, id: &PodId) -> Result<(), String> {
        let files = &self.drivers.pod_files;
        let removals = [
            (Leak::Netns, files.unpin_network(id)),
            (Leak::Bundle, files.remove(id)),
            (Leak::Mount, files.drop_shm(id)),
        ];
        removals.into_iter().try_for_each(|(kind, removed)| {
            kind.note_if_any(&removed);
            removed.map(drop).map_err(|error| chain(&error))
        })
    }

    /// The record was cut short before it could name the cgroup: making it again tells its name. A scope of systemd has
    /// gone with its shim. True if there was one.
    async fn remove_cgroup(&self, record: &PodRecord) -> Result<bool, CgroupError> {
        let (cgroups, parent) = (&self.drivers.cgroups, &record.spec.cgroup_parent);
        let found = cgroups.has_pod(parent, &record.id)?;
        match cgroups.create_pod(parent, &record.id, None).await {
            Err(CgroupError::NoProcess { .. }) => Ok(false),
            made => cgroups.remove_pod(&made?).await.map(|()| found),
        }
    }

    /// Shims, network namespaces and files that no record names: of a daemon whose store was lost.
    async fn end_strangers(&self, known: &HashSet<PodId>) {
        let shims = self.drivers.shims.known().unwrap_or_default();
        let pods: HashSet<_> = self.drivers.pod_files.known().into_iter().chain(shims).collect();
        for pod in pods.difference(known) {
            tracing::warn!(pod_id = %pod, "no record knows this pod: what is left of it is removed");
            if let Ok((shim, _)) = self.drivers.shims.connect(pod).await {
                self.end_shim(&shim).await;
            }
            let removed = self.drivers.shims.remove_directory(pod).map_err(|error| chain(&error));
            if let Err(error) = self.remove_files(pod).and(removed) {
                tracing::warn!(pod_id = %pod, error, "cannot remove all that is left of a pod");
            }
        }
    }

    /// One that should not be there any more.
    async fn end_shim(&self, shim: &Shim) {
        let ended = shim.shut_down().await;
        Leak::Shim.note(&ended);
        if let Err(error) = ended {
            tracing::warn!(error = chain(&error), "cannot end a shim");
        }
    }

    /// A connection has ended while the pod was ready: connect again, or give the pod up.
    pub async fn on_shim_gone(&self, id: &PodId) {
        self.containers.on_connection_lost(id);
        let Some(pod) = self.table().get(id).cloned() else {
            return;
        };
        let span = subject::pod(&pod.sandbox.spec.metadata, id);
        let reconnect = activity::track(Verb::ShimLost, pod.name(), id.as_str(), self.reconnect(&pod));
        reconnect.instrument(span).await;
    }

    async fn reconnect(&self, pod: &Pod) {
        let (id, _verb) = (pod.id(), activity::lock(&pod.verb, "pod").await);
        if !pod.is_ready() {
            return;
        }
        if let Ok((shim, known)) = self.drivers.shims.connect(id).await {
            pod.sandbox.set_shim(Some(shim));
            self.containers.resync(&pod.sandbox, &known.containers).await;
            return;
        }
        METRICS.shim_exits.inc();
        tracing::warn!("the shim has died: the pod is not ready any more");
        pod.sandbox.set_shim(None);
        self.containers.on_shim_lost(&pod.sandbox).await;
        if let Err(error) = self.set_not_ready(pod, pod.network()).await {
            tracing::error!(error = chain(&error), "cannot record the pod");
        }
    }
}
