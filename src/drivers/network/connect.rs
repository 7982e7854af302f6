//! The verbs: open, attach, detach, status, reconcile. Intent is recorded before any effect.
//! What does not live here: how either network does it.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::builtin::{BuiltIn, BuiltInError, Holding};
use super::cni::{Cni, CniError, NetworkList, Told};
use super::{AttachedBy, Attachment, BuiltInConfig, CniConfig, PodNetwork, Subnet, SubnetError};
use crate::drivers::store::{Durability, Record, Store, StoreError};
use crate::error::chain;
use crate::ids::PodId;
use crate::layout::Layout;
use crate::looks::Looks;
use crate::telemetry::Leak;

/// Why a pod is not connected, or not disconnected.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The built-in network failed.
    #[error("cannot {verb} the network of pod {pod}")]
    BuiltIn {
        /// `set up` or `tear down`.
        verb: &'static str,
        /// `namespace/name`.
        pod: String,
        /// Why.
        #[source]
        source: BuiltInError,
    },
    /// CNI plugins, or their configuration, failed.
    #[error("cannot {verb} the network of pod {pod}")]
    Cni {
        /// `set up`, `check` or `tear down`.
        verb: &'static str,
        /// `namespace/name`.
        pod: String,
        /// Why.
        #[source]
        source: CniError,
    },
    /// The pod's namespace can't be used.
    #[error("cannot use the network namespace of pod {pod}")]
    Namespace {
        /// `namespace/name`.
        pod: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The built-in network can't be opened, or its leftovers can't be removed.
    #[error("the built-in network is not usable")]
    Open(#[source] BuiltInError),
    /// The intent could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kubelet's pod CIDR is none.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
}

/// Why no pod can be connected now (CRI condition NetworkReady).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What a pod holds, or may hold, of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Held {
    BuiltIn(Holding),
    /// Boxed: much larger than the other.
    Cni(Box<CniHeld>),
}

/// DEL uses what ADD used, even if the files have changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CniHeld {
    list: NetworkList,
    told: Told,
    /// None: ADD did not finish.
    result: Option<Value>,
    /// `namespace/name`.
    owner: String,
}

impl Record for Held {
    const TABLE: &'static str = "pod_networks";
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PodCidr(Vec<Subnet>);

impl Record for PodCidr {
    const TABLE: &'static str = "pod_cidr";
}

/// The network of all pods.
pub struct Network {
    built_in: BuiltIn,
    cni: Cni,
    store: Arc<Store>,
    held: Mutex<BTreeMap<PodId, Held>>,
    pub(super) looks: Looks<Result<(), NotReady>>,
}

impl Network {
    /// Takes up the records; changes nothing on the host before the first pod or `reconcile`.
    pub async fn open(
        cni: CniConfig,
        built_in: BuiltInConfig,
        layout: &Layout,
        store: Arc<Store>,
    ) -> Result<Self, NetworkError> {
        let mut held = BTreeMap::new();
        for (key, record) in store.load::<Held>()? {
            match (PodId::parse(&key), record) {
                (Ok(pod), Ok(record)) => {
                    held.insert(pod, record);
                }
                (_, Err(error)) => tracing::warn!(
                    pod_id = key,
                    error = chain(&error),
                    "a network record is damaged and dropped"
                ),
                (Err(error), _) => {
                    tracing::warn!(key, %error, "a network record has no pod id and is dropped")
                }
            }
        }
        let holdings = held.iter().filter_map(|(pod, held)| match held {
            Held::BuiltIn(holding) => Some((pod.clone(), holding.clone())),
            Held::Cni(_) => None,
        });
        // A link's alias has at most 255 bytes.
        let owner: String = format!("berth {}", layout.root().display()).chars().take(200).collect();
        let built_in = BuiltIn::open(built_in, owner, holdings).map_err(NetworkError::Open)?;
        for (_, cidr) in store.load::<PodCidr>()? {
            if let Ok(cidr) = cidr {
                built_in.set_pod_subnets(cidr.0).await.map_err(NetworkError::Open)?;
            }
        }
        Ok(Self { built_in, cni: Cni::new(cni), store, held: Mutex::new(held), looks: Looks::default() })
    }

    /// Connects a pod. On failure everything is undone. Not for two callers with the same pod at once.
    pub async fn attach(&self, pod: &PodNetwork, netns: BorrowedFd<'_>) -> Result<Attachment, NetworkError> {
        let netns = netns.try_clone_to_owned();
        let netns = netns.map_err(|source| NetworkError::Namespace { pod: describe(pod), source })?;
        let configured = self.cni.configured();
        match configured.map_err(|source| NetworkError::Cni { verb: "set up", pod: describe(pod), source })? {
            Some(list) => self.attach_cni(pod, list, netns).await,
            None => self.attach_built_in(pod, netns).await,
        }
    }

    async fn attach_built_in(&self, pod: &PodNetwork, netns: OwnedFd) -> Result<Attachment, NetworkError> {
        let failed = |source| NetworkError::BuiltIn { verb: "set up", pod: describe(pod), source };
        let holding = self.built_in.reserve(pod).await.map_err(failed)?;
        if let Err(error) = self.keep(&pod.id, Held::BuiltIn(holding.clone())).await {
            self.built_in.cancel(&pod.id, &holding);
            return Err(error);
        }
        match self.built_in.attach(&pod.id, &holding, netns).await {
            Ok(interfaces) => {
                let ips = holding.leases.iter().map(|lease| lease.ip).collect();
                Ok(Attachment { ips, interfaces, by: AttachedBy::BuiltIn(holding) })
            }
            Err(error) => {
                self.built_in.cancel(&pod.id, &holding);
                self.drop_record(&pod.id).await?;
                Err(failed(error))
            }
        }
    }

    async fn attach_cni(
        &self,
        pod: &PodNetwork,
        list: NetworkList,
        netns: OwnedFd,
    ) -> Result<Attachment, NetworkError> {
        let owner = describe(pod);
        let failed = |source| NetworkError::Cni { verb: "set up", pod: owner.clone(), source };
        let told = self.cni.describe(pod, &self.built_in.pod_subnets()).map_err(failed)?;
        let deaf = self.built_in.ignore_router_advertisements(netns).await;
        deaf.map_err(|source| NetworkError::BuiltIn { verb: "set up", pod: owner.clone(), source })?;
        let mut held = CniHeld { list, told, result: None, owner: owner.clone() };
        self.keep(&pod.id, Held::Cni(Box::new(held.clone()))).await?;
        let added = match self.cni.add(&held.list, &held.told).await {
            Ok(added) => added,
            Err(error) => {
                // A plugin that does not clean up keeps its record, and `detach` or the next start tries again.
                match self.cni.del(&held.list, &held.told, None).await {
                    Ok(()) => self.drop_record(&pod.id).await?,
                    Err(error) => {
                        Leak::Address.found();
                        tracing::warn!(error = chain(&error), "what a failed ADD left is not removed yet")
                    }
                }
                return Err(failed(error));
            }
        };
        held.result = Some(added.result.clone());
        let config = serde_json::to_value(&held.list).unwrap_or_default();
        let network = held.list.name.clone();
        if let Err(error) = self.keep(&pod.id, Held::Cni(Box::new(held.clone()))).await {
            let _ = self.release(&pod.id, &owner, &Held::Cni(Box::new(held))).await;
            return Err(error);
        }
        let by = AttachedBy::Cni { network, config, result: added.result };
        Ok(Attachment { ips: added.ips, interfaces: added.interfaces, by })
    }

    /// Runs CHECK of the plugins that connected a pod; nothing to do for the built-in network.
    pub async fn check(&self, pod: &PodNetwork) -> Result<(), NetworkError> {
        let held = self.held().get(&pod.id).cloned();
        let Some(Held::Cni(held)) = held else {
            return Ok(());
        };
        let result = held.result.clone().unwrap_or_default();
        let checked = self.cni.check(&held.list, &held.told, &result).await;
        checked.map_err(|source| NetworkError::Cni { verb: "check", pod: held.owner, source })
    }

    /// Disconnects a pod; false if it was not connected. A namespace that is gone is fine. The built-in network leaves the veth to the namespace's end, and reuses its address only then.
    pub async fn detach(
        &self,
        pod: &PodNetwork,
        _attachment: Option<&Attachment>,
    ) -> Result<bool, NetworkError> {
        // Without a record it was given back before, and another pod may have its address and ports by now.
        let held = self.held().get(&pod.id).cloned();
        match held {
            Some(held) => self.release(&pod.id, &describe(pod), &held).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn release(&self, id: &PodId, name: &str, held: &Held) -> Result<(), NetworkError> {
        let (verb, pod) = ("tear down", name.to_string());
        match held {
            Held::BuiltIn(holding) => {
                let gone = self.built_in.detach(id, holding).await;
                gone.map_err(|source| NetworkError::BuiltIn { verb, pod, source })?;
            }
            Held::Cni(held) => {
                let told = held.told.clone().with_living_netns();
                let gone = self.cni.del(&held.list, &told, held.result.as_ref()).await;
                gone.map_err(|source| NetworkError::Cni { verb, pod, source })?;
            }
        }
        self.drop_record(id).await
    }

    /// Whether a pod could be connected now; asks the plugins, which may take their time: see `ready`.
    pub(super) async fn status(&self) -> Result<(), NotReady> {
        let ready = match self.cni.configured() {
            Ok(Some(list)) => self.cni.status(&list).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        ready.map_err(|error| {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            NotReady { reason: "NetworkPluginNotReady", message }
        })
    }

    /// At the daemon's start: gives back what pods that are no more held, and renews what the living need. What
    /// plugins cannot give back now keeps its record for the next time.
    pub async fn reconcile(&self, live: &HashSet<PodId>) -> Result<(), NetworkError> {
        let all = self.held().clone();
        for (pod, held) in all.iter().filter(|(pod, _)| !live.contains(*pod)) {
            let owner = match held {
                Held::BuiltIn(holding) => &holding.owner,
                Held::Cni(held) => &held.owner,
            };
            let released = self.release(pod, owner, held).await;
            Leak::Address.note(&released);
            if let Err(error) = released {
                let (pod_id, error) = (pod.as_str(), chain(&error));
                tracing::warn!(
                    pod = owner,
                    pod_id,
                    error,
                    "the network of a pod that is gone is not given back yet"
                );
            }
        }
        if let Ok(Some(list)) = self.cni.configured() {
            let held = self.held().clone();
            let live: Vec<_> = held.into_iter().filter(|(_, held)| matches!(held, Held::Cni(_))).collect();
            let live: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
            if let Err(error) = self.cni.collect(&list, &live).await {
                tracing::warn!(error = chain(&error), "CNI plugins did not collect garbage");
            }
        }
        self.built_in.sweep().await.map_err(NetworkError::Open)
    }

    /// At an orderly stop: removes bridge and rules from the host, if no pod is connected. The next pod makes them again.
    pub async fn close(&self) -> Result<(), NetworkError> {
        self.built_in.close().await.map_err(NetworkError::Open)
    }

    /// The kubelet's pod CIDR (UpdateRuntimeConfig): networks with commas between, kept across restarts.
    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<(), NetworkError> {
        let parts = cidr.split(',').map(str::trim).filter(|part| !part.is_empty());
        let subnets = parts.map(Subnet::parse).collect::<Result<Vec<_>, _>>()?;
        self.store.put("kubelet", &PodCidr(subnets.clone()), Durability::Process).await?;
        self.built_in.set_pod_subnets(subnets).await.map_err(NetworkError::Open)
    }

    async fn keep(&self, pod: &PodId, held: Held) -> Result<(), NetworkError> {
        self.store.put(pod.as_str(), &held, Durability::Process).await?;
        self.held().insert(pod.clone(), held);
        Ok(())
    }

    async fn drop_record(&self, pod: &PodId) -> Result<(), NetworkError> {
        self.store.delete::<Held>(pod.as_str(), Durability::Process).await?;
        self.held().remove(pod);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<PodId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(pod: &PodNetwork) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
