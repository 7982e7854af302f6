//! The verbs: open, attach, detach, status, reconcile. Intent is recorded before any effect.
//! What does not live here: how either network does it.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::builtin::{BuiltIn, BuiltInError, Holding};
use super::{AttachedBy, Attachment, BuiltInConfig, CniConfig, PodNetwork, Subnet, SubnetError};
use crate::drivers::store::{Durability, Record, Store, StoreError};
use crate::ids::PodId;
use crate::layout::Layout;

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
    store: Arc<Store>,
    held: Mutex<BTreeMap<PodId, Held>>,
}

impl Network {
    /// Takes up the records; changes nothing on the host before the first pod or `reconcile`.
    pub async fn open(
        _cni: CniConfig,
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
                (_, Err(error)) => tracing::warn!(key, %error, "a network record is damaged and dropped"),
                (Err(error), _) => tracing::warn!(key, %error, "a network record has no pod id and is dropped"),
            }
        }
        let holdings = held.iter().map(|(pod, Held::BuiltIn(holding))| (pod.clone(), holding.clone()));
        // A link's alias has at most 255 bytes.
        let owner: String = format!("berth {}", layout.root().display()).chars().take(200).collect();
        let built_in = BuiltIn::open(built_in, owner, holdings).map_err(NetworkError::Open)?;
        for (_, cidr) in store.load::<PodCidr>()? {
            if let Ok(cidr) = cidr {
                built_in.set_pod_subnets(cidr.0).await.map_err(NetworkError::Open)?;
            }
        }
        Ok(Self { built_in, store, held: Mutex::new(held) })
    }

    /// Connects a pod. On failure everything is undone. Not for two callers with the same pod at once.
    pub async fn attach(&self, pod: &PodNetwork, netns: BorrowedFd<'_>) -> Result<Attachment, NetworkError> {
        let failed = |source| NetworkError::BuiltIn { verb: "set up", pod: describe(pod), source };
        let netns = netns.try_clone_to_owned();
        let netns = netns.map_err(|source| NetworkError::Namespace { pod: describe(pod), source })?;
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

    /// Disconnects a pod; one that is not connected is fine, and so is a namespace that is gone. The built-in
    /// network leaves the veth to the namespace's end, and reuses its address only then.
    pub async fn detach(&self, pod: &PodNetwork, attachment: Option<&Attachment>) -> Result<(), NetworkError> {
        let recorded = self.held().get(&pod.id).cloned();
        let held = recorded.or_else(|| match attachment.map(|attachment| &attachment.by) {
            Some(AttachedBy::BuiltIn(holding)) => Some(Held::BuiltIn(holding.clone())),
            _ => None,
        });
        match held {
            // Without a record it was given back before, and another pod may have its address and ports by now.
            None => Ok(()),
            Some(held) if self.held().contains_key(&pod.id) => self.release(&pod.id, &describe(pod), &held).await,
            Some(_) => Ok(()),
        }
    }

    async fn release(&self, id: &PodId, name: &str, held: &Held) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::BuiltIn { verb: "tear down", pod: name.to_string(), source };
        match held {
            Held::BuiltIn(holding) => self.built_in.detach(id, holding).await.map_err(failed)?,
        }
        self.drop_record(id).await
    }

    /// Whether a pod could be connected now.
    pub async fn status(&self) -> Result<(), NotReady> {
        Ok(())
    }

    /// At the daemon's start: gives back what pods that are no more held, and renews what the living need.
    pub async fn reconcile(&self, live: &HashSet<PodId>) -> Result<(), NetworkError> {
        let all = self.held().clone();
        for (pod, held) in all.iter().filter(|(pod, _)| !live.contains(pod)) {
            self.release(pod, pod.short(), held).await?;
        }
        self.built_in.sweep().await.map_err(NetworkError::Open)
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
