//! RunPodSandbox: intent on record, shim, cgroup, namespaces, network; each step undone if a later one fails.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use berth_proto::shim::v1;
use tracing::Instrument;

use super::pod::State;
use super::spec::{PodLimits, PodPid, PodSpec};
use super::{Cause, Pod, PodError, PodRecord, Pods};
use crate::activity::{self, Verb};
use crate::clock;
use crate::containers::Sandbox;
use crate::containers::selinux;
use crate::containers::spec::IdMapping;
use crate::drivers::cgroup::PodCgroup;
use crate::drivers::network::Attachment;
use crate::drivers::shim::Shim;
use crate::drivers::store::Durability;
use crate::error::chain;
use crate::events::Happening;
use crate::ids::PodId;
use crate::rollback::Rollback;
use crate::telemetry::{Leak, METRICS, Stage, stage, subject};

/// The shim must outlive what it watches when memory is short.
const SHIM_OOM_SCORE: i32 = -998;

impl Pods {
    /// Makes a pod sandbox. A second call with the same metadata joins the first.
    pub async fn run(self: &Arc<Self>, spec: PodSpec) -> Result<PodId, PodError> {
        let name = spec.metadata.to_string();
        subject::note_pod(&spec.metadata, None);
        let (this, subject) = (self.clone(), name.clone());
        let run = self.starting.join_or_start(spec.metadata.clone(), || {
            activity::track(Verb::RunPodSandbox, subject, "", this.run_one(spec))
        });
        run.await.unwrap_or_else(|lost| Err(Cause::from(lost).of(name)))
    }

    async fn run_one(self: Arc<Self>, spec: PodSpec) -> Result<PodId, PodError> {
        let start = Instant::now();
        let name = spec.metadata.to_string();
        if let Some(twin) = self.twin(&spec) {
            // A retry: its caller did not hear that the first call had succeeded.
            let same = twin.is_ready() && twin.sandbox.spec == spec;
            return if same {
                Ok(twin.id().clone())
            } else {
                Err(Cause::Duplicate(twin.id().clone()).of(name))
            };
        }
        let id = PodId::generate();
        activity::identify(&id);
        subject::note_pod_id(&id);
        let mut rollback = Rollback::new();
        match self.run_as(&id, spec, &mut rollback).await {
            Ok(()) => {
                rollback.disarm();
                METRICS.pod_start.observe(start.elapsed().as_secs_f64());
                Ok(id)
            }
            Err(cause) => {
                activity::step("undo");
                rollback.undo().await;
                Err(cause.of(name))
            }
        }
    }

    fn twin(&self, spec: &PodSpec) -> Option<Arc<Pod>> {
        self.table().values().find(|pod| pod.sandbox.spec.metadata == spec.metadata).cloned()
    }

    async fn run_as(
        self: &Arc<Self>,
        id: &PodId,
        spec: PodSpec,
        rollback: &mut Rollback,
    ) -> Result<(), Cause> {
        self.config.find(&spec.runtime_handler)?;
        if spec.namespaces.user.is_some() {
            // Without mapped images the pod's root would have to be the host's.
            self.drivers.layers.maps_ids().map_err(|why| Cause::UserNamespaces(why.to_owned()))?;
        }
        let label = self.label(id, &spec)?;
        let created_at = clock::now();
        stage(Stage::Record, self.record_intent(id, &spec, created_at, rollback)).await?;
        let shim = stage(Stage::Shim, self.start_shim(id, &spec, rollback)).await?;
        let cgroup = stage(Stage::Cgroup, self.make_cgroup(id, &spec, &shim, rollback)).await?;
        let mut setup = setup_of(&spec, &cgroup, &self.drivers.layout.pod_shm(id));
        setup.mount_label = label.clone().unwrap_or_default();
        let netns = stage(Stage::Namespaces, shim.setup(setup)).await?.network;
        let network = match netns {
            Some(netns) => Some(stage(Stage::Network, self.connect(id, &spec, netns, rollback)).await?),
            None => None,
        };
        let ready = async {
            self.write_files(id, &spec, network.as_ref(), rollback)?;
            if let Some(label) = label {
                self.drivers.pod_files.label(id, &label)?;
            }
            let sandbox = Sandbox::new(id.clone(), spec, cgroup, Some(shim));
            self.make_ready(Pod::new(sandbox, created_at, State::Ready { network })).await
        };
        stage(Stage::Ready, ready).await
    }

    /// Recorded before anybody can see it.
    async fn make_ready(&self, pod: Pod) -> Result<(), Cause> {
        let pod = Arc::new(pod);
        let id = pod.id().clone();
        self.drivers.store.put(id.as_str(), &pod.record(), Durability::Process).await?;
        let mut turn = self.containers.events().turn();
        self.table().insert(id.clone(), pod);
        turn.tell(Happening::Created, &id, &id);
        turn.tell(Happening::Started, &id, &id);
        Ok(())
    }

    /// The SELinux label of the pod's files, where the kernel has SELinux.
    fn label(&self, id: &PodId, spec: &PodSpec) -> Result<Option<String>, Cause> {
        selinux::check(spec.selinux.as_ref())?;
        let level = || selinux::level(id, spec.selinux.as_ref());
        Ok(self.drivers.host.selinux.then(|| selinux::files(&level())))
    }

    async fn record_intent(
        self: &Arc<Self>,
        id: &PodId,
        spec: &PodSpec,
        created_at: i64,
        rollback: &mut Rollback,
    ) -> Result<(), Cause> {
        let (this, id) = (self.clone(), id.clone());
        let record = PodRecord {
            id: id.clone(),
            spec: spec.clone(),
            cgroup: None,
            created_at,
            limits: PodLimits::default(),
            state: State::Starting,
        };
        self.drivers.store.put(id.as_str(), &record, Durability::Process).await?;
        rollback.push(async move {
            if let Err(error) = this.drivers.store.delete::<PodRecord>(id.as_str(), Durability::Process).await
            {
                tracing::warn!(error = chain(&error), "cannot remove the record of a pod that was not made");
            }
        });
        Ok(())
    }

    async fn start_shim(
        self: &Arc<Self>,
        id: &PodId,
        spec: &PodSpec,
        rollback: &mut Rollback,
    ) -> Result<Shim, Cause> {
        let (this, pod) = (self.clone(), id.clone());
        rollback.push(async move {
            if let Err(error) = this.drivers.pod_files.drop_shm(&pod) {
                Leak::Mount.found();
                tracing::warn!(
                    error = chain(&error),
                    "cannot free the shared memory of a pod that was not made"
                );
            }
            if let Err(error) = this.drivers.shims.remove_directory(&pod) {
                Leak::Bundle.found();
                tracing::warn!(error = chain(&error), "cannot remove the directory of a shim");
            }
        });
        // What watches it outlives this call.
        let shim = self.drivers.shims.spawn(id).instrument(subject::pod(&spec.metadata, id)).await?;
        let undo = shim.clone();
        rollback.push(async move {
            if let Err(error) = undo.shut_down().await {
                Leak::Shim.found();
                tracing::warn!(error = chain(&error), "cannot end the shim of a pod that was not made");
            }
        });
        Ok(shim)
    }

    async fn make_cgroup(
        self: &Arc<Self>,
        id: &PodId,
        spec: &PodSpec,
        shim: &Shim,
        rollback: &mut Rollback,
    ) -> Result<PodCgroup, Cause> {
        let cgroup = self.drivers.cgroups.create_pod(&spec.cgroup_parent, id, Some(shim.pid())).await?;
        let (this, undo, shim) = (self.clone(), cgroup.clone(), shim.clone());
        rollback.push(async move {
            // Its cgroup can't go before the shim that is in it, one that hangs included.
            if shim.shut_down().await.is_err() {
                let _ = this.drivers.cgroups.kill(&undo).await;
            }
            if let Err(error) = this.drivers.cgroups.remove_pod(&undo).await {
                Leak::Cgroup.found();
                tracing::warn!(error = chain(&error), "cannot remove the cgroup of a pod that was not made");
            }
        });
        Ok(cgroup)
    }

    async fn connect(
        self: &Arc<Self>,
        id: &PodId,
        spec: &PodSpec,
        netns: OwnedFd,
        rollback: &mut Rollback,
    ) -> Result<Attachment, Cause> {
        let (this, pod) = (self.clone(), id.clone());
        rollback.push(async move {
            if let Err(error) = this.drivers.pod_files.unpin_network(&pod) {
                Leak::Netns.found();
                tracing::warn!(
                    error = chain(&error),
                    "cannot let go the network namespace of a pod that was not made"
                );
            }
        });
        self.drivers.pod_files.pin_network(id, netns.as_fd())?;
        // A failed attach has undone itself.
        let network = self.network_of(id, spec);
        let attachment = self.drivers.network.attach(&network, netns.as_fd()).await.map_err(Box::new)?;
        let (this, undo) = (self.clone(), attachment.clone());
        rollback.push(async move {
            if let Err(error) = this.drivers.network.detach(&network, Some(&undo)).await {
                Leak::Address.found();
                tracing::warn!(error = chain(&error), "cannot disconnect a pod that was not made");
            }
        });
        Ok(attachment)
    }

    fn write_files(
        self: &Arc<Self>,
        id: &PodId,
        spec: &PodSpec,
        network: Option<&Attachment>,
        rollback: &mut Rollback,
    ) -> Result<(), Cause> {
        let (this, pod) = (self.clone(), id.clone());
        rollback.push(async move {
            if let Err(error) = this.drivers.pod_files.remove(&pod) {
                Leak::Bundle.found();
                tracing::warn!(error = chain(&error), "cannot remove the files of a pod that was not made");
            }
        });
        let addresses = network.map_or(&[][..], |network| &network.ips);
        Ok(self.drivers.pod_files.write(id, spec, addresses)?)
    }
}

fn setup_of(spec: &PodSpec, cgroup: &PodCgroup, shm_path: &Path) -> v1::Setup {
    let namespaces = &spec.namespaces;
    let user = namespaces.user.as_ref();
    v1::Setup {
        cgroups: cgroup.join_dirs(),
        new_network: !namespaces.host_network,
        new_ipc: !namespaces.host_ipc,
        // A pod in the host's network has the host's name too.
        new_uts: !namespaces.host_network,
        shared_pid: namespaces.pid == PodPid::Pod,
        hostname: spec.hostname.clone(),
        sysctls: sysctls(spec),
        shm_size: 0,
        shm_path: shm_path.to_string_lossy().into_owned(),
        oom_score_adj: SHIM_OOM_SCORE,
        uid_mappings: user.map_or_else(Vec::new, |user| id_maps(&user.uids)),
        gid_mappings: user.map_or_else(Vec::new, |user| id_maps(&user.gids)),
        mount_label: String::new(),
    }
}

/// Those asked for, over two that let containers without privileges use low ports and ping: both concern nobody
/// outside a network namespace of the pod's own.
fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let harmless: &[(&str, &str)] = if !spec.namespaces.host_network {
        &[("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
    } else {
        &[]
    };
    let mut sysctls: HashMap<_, _> =
        harmless.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    sysctls.extend(spec.sysctls.clone());
    sysctls
}

fn id_maps(mappings: &[IdMapping]) -> Vec<v1::IdMap> {
    let map =
        |m: &IdMapping| v1::IdMap { container_id: m.container_id, host_id: m.host_id, length: m.length };
    mappings.iter().map(map).collect()
}
