//! The network that Berth makes itself: a bridge, a veth for each pod, addresses, masquerade and host ports.
//! What does not live here: CNI, and the records that survive the daemon.

mod addresses;
mod kernel;
mod rules;
pub mod subnet;
mod sysctl;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use self::addresses::Addresses;
pub use self::addresses::TakenError;
use self::kernel::{Wanted, Wiring, Worker};
use self::rules::Element;
use self::subnet::Subnet;
use super::netlink::NetlinkError;
use super::{BuiltInConfig, Interface, PodNetwork};
use crate::ids::PodId;
use crate::pods::spec::PortMapping;

/// The pod's interface.
pub const INTERFACE: &str = "eth0";
const VETH_PREFIX: &str = "berth";
/// In no widely used default; the second is `berth` in hexadecimal after fd.
const DEFAULT_SUBNETS: [&str; 2] = ["10.209.0.0/16", "fd62:6572:7468::/64"];

/// One address of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix: u8,
    /// The host's address in that subnet.
    pub gateway: IpAddr,
}

/// What a pod has of the built-in network: recorded before it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Addresses, IPv4 first.
    pub leases: Vec<Lease>,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// `namespace/name`.
    pub owner: String,
}

/// Why the built-in network does not serve.
#[derive(Debug, thiserror::Error)]
pub enum BuiltInError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No address or port.
    #[error(transparent)]
    Taken(#[from] TakenError),
    /// A kernel parameter could not be set.
    #[error("cannot set kernel parameter {name} to {value}")]
    Sysctl {
        /// With dots.
        name: String,
        /// What it should become.
        value: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the network thread")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The thread has ended: the daemon is stopping.
    #[error("the network thread has stopped")]
    Stopped,
    /// The bridge is another's.
    #[error("bridge {name} belongs to {owner}: give [network] bridge another name, or remove that bridge")]
    Foreign {
        /// Its name.
        name: String,
        /// Its alias.
        owner: String,
    },
    /// The name is that of something else.
    #[error("network link {name} is not a bridge: give [network] bridge another name")]
    NoBridge {
        /// Its name.
        name: String,
    },
    /// The subnet is in use on this host.
    #[error("pod subnet {subnet} overlaps {other} of network link {link}: set [network] subnets")]
    Overlap {
        /// Ours.
        subnet: Subnet,
        /// Theirs.
        other: Subnet,
        /// Where theirs is.
        link: String,
    },
    /// A name that no link can have.
    #[error(
        "[network] bridge {0:?} is not 1 to 15 letters, digits, '.', '_' or '-', beginning with a letter"
    )]
    Name(String),
}

/// The built-in network.
pub struct BuiltIn {
    config: BuiltInConfig,
    owner: String,
    worker: Worker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    addresses: Addresses,
    holdings: BTreeMap<PodId, Holding>,
    pod_subnets: Vec<Subnet>,
}

impl BuiltIn {
    /// Takes what living pods have from the records; changes nothing in the kernel.
    pub fn open(
        config: BuiltInConfig,
        owner: String,
        holdings: impl IntoIterator<Item = (PodId, Holding)>,
    ) -> Result<Self, BuiltInError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let name = config.bridge.as_bytes();
        if !name.first().is_some_and(u8::is_ascii_alphabetic)
            || name.len() > 15
            || !name.iter().all(|b| allowed(*b))
        {
            return Err(BuiltInError::Name(config.bridge));
        }
        let mut state = State::default();
        for (pod, holding) in holdings {
            state.addresses.restore(&holding.leases);
            state.addresses.take_ports(&pod, &holding.owner, &holding.ports)?;
            state.holdings.insert(pod, holding);
        }
        Ok(Self { config, owner, worker: Worker::start()?, state: Mutex::new(state) })
    }

    /// The subnets that the kubelet names; used where the configuration names none.
    pub async fn set_pod_subnets(&self, subnets: Vec<Subnet>) -> Result<(), BuiltInError> {
        self.state().pod_subnets = subnets;
        self.worker
            .run(|kernel| {
                kernel.forget();
                Ok(())
            })
            .await
    }

    /// Takes addresses and ports for a pod, in memory only: to be recorded before `attach`.
    pub async fn reserve(&self, pod: &PodNetwork) -> Result<Holding, BuiltInError> {
        match self.try_reserve(pod, &HashSet::new()) {
            Err(BuiltInError::Taken(TakenError::Exhausted(_))) => {}
            result => return result,
        }
        // Only now is it worth to ask the kernel which of the leaving pods' veths are gone.
        let leaving = self.state().addresses.leaving();
        let ask = move |kernel: &mut kernel::Kernel| {
            Ok(leaving.into_iter().filter(|pod| kernel.is_gone(&veth_name(pod))).collect::<HashSet<_>>())
        };
        let gone = self.worker.run(ask).await?;
        self.try_reserve(pod, &gone)
    }

    fn try_reserve(&self, pod: &PodNetwork, gone: &HashSet<PodId>) -> Result<Holding, BuiltInError> {
        let mut state = self.state();
        let subnets = self.subnets(&state);
        let owner = format!("{}/{}", pod.namespace, pod.name);
        state.addresses.take_ports(&pod.id, &owner, &pod.ports)?;
        match state.addresses.lease(&subnets, |leaving| gone.contains(leaving)) {
            Ok(leases) => {
                let holding = Holding { leases, ports: pod.ports.clone(), owner };
                state.holdings.insert(pod.id.clone(), holding.clone());
                Ok(holding)
            }
            Err(error) => {
                state.addresses.release_ports(&pod.id);
                Err(error.into())
            }
        }
    }

    /// Wires a pod that has reserved; on failure nothing is left in the kernel, and the reservation stands.
    pub async fn attach(
        &self,
        pod: &PodId,
        holding: &Holding,
        netns: OwnedFd,
    ) -> Result<Vec<Interface>, BuiltInError> {
        let wiring = wiring(pod, holding);
        let (wanted, living) = {
            let state = self.state();
            let others = state.holdings.iter().filter(|(id, _)| *id != pod);
            let living: Vec<Element> =
                others.flat_map(|(_, holding)| rules::elements(&holding.ports, &holding.leases)).collect();
            (self.wanted(&state), living)
        };
        let job = move |kernel: &mut kernel::Kernel| {
            let first = kernel.attach(&wanted, &living, &netns, &wiring);
            match first {
                // Somebody removed the bridge or the table: make them again, once.
                Err(BuiltInError::Netlink(error)) if error.is_missing() => {
                    kernel.forget();
                    kernel.attach(&wanted, &living, &netns, &wiring)
                }
                result => result,
            }
        };
        let mac = self.worker.run(job).await?;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        Ok(vec![
            Interface { name: veth_name(pod), mac: None, sandbox: false },
            Interface { name: INTERFACE.into(), mac: Some(mac), sandbox: true },
        ])
    }

    /// Closes the pod's host ports. Its veth goes with its namespace, and only then its addresses are free.
    pub async fn detach(&self, pod: &PodId, holding: &Holding) -> Result<(), BuiltInError> {
        let wiring = wiring(pod, holding);
        if !wiring.elements.is_empty() {
            let bridge = self.config.bridge.clone();
            self.worker.run(move |kernel| kernel.close_ports(&bridge, &wiring)).await?;
        }
        let mut state = self.state();
        state.addresses.leave(pod, &holding.leases);
        state.addresses.release_ports(pod);
        state.holdings.remove(pod);
        Ok(())
    }

    /// Makes a pod deaf to router advertisements before anything connects it (CVE-2020-10749).
    pub async fn ignore_router_advertisements(&self, netns: OwnedFd) -> Result<(), BuiltInError> {
        let deafen = || {
            sysctl::set_if_there("net/ipv6/conf/all/accept_ra", "0")?;
            sysctl::set_if_there("net/ipv6/conf/default/accept_ra", "0")
        };
        self.worker.run(move |kernel| kernel.inside(&netns, deafen)).await
    }

    /// The kubelet's pod CIDR, as last set.
    pub fn pod_subnets(&self) -> Vec<Subnet> {
        self.state().pod_subnets.clone()
    }

    /// Gives back a reservation of which nothing was made.
    pub fn cancel(&self, pod: &PodId, holding: &Holding) {
        let mut state = self.state();
        state.addresses.forget(&holding.leases);
        state.addresses.release_ports(pod);
        state.holdings.remove(pod);
    }

    /// Removes veths of pods that hold nothing, and renews the rules if any pod holds something.
    pub async fn sweep(&self) -> Result<(), BuiltInError> {
        let (wanted, keep, elements) = {
            let state = self.state();
            let keep: HashSet<String> = state.holdings.keys().map(veth_name).collect();
            let all = state.holdings.values();
            let elements: Vec<_> =
                all.flat_map(|holding| rules::elements(&holding.ports, &holding.leases)).collect();
            (self.wanted(&state), keep, elements)
        };
        let job = move |kernel: &mut kernel::Kernel| {
            kernel.sweep(&wanted, &keep)?;
            if keep.is_empty() { Ok(()) } else { kernel.ensure(&wanted, &elements).map(|_| ()) }
        };
        self.worker.run(job).await
    }

    /// Removes bridge and rules from the host, if no pod holds anything.
    pub async fn close(&self) -> Result<(), BuiltInError> {
        let wanted = {
            let state = self.state();
            state.holdings.is_empty().then(|| self.wanted(&state))
        };
        match wanted {
            Some(wanted) => self.worker.run(move |kernel| kernel.remove(&wanted)).await,
            None => Ok(()),
        }
    }

    fn wanted(&self, state: &State) -> Wanted {
        let leases = state.holdings.values().flat_map(|holding| &holding.leases);
        let used: HashSet<Subnet> = leases.map(|lease| Subnet::of(lease.ip, lease.prefix)).collect();
        Wanted {
            bridge: self.config.bridge.clone(),
            owner: self.owner.clone(),
            mtu: self.config.mtu,
            masquerade: self.config.masquerade,
            subnets: self.subnets(state),
            used: used.into_iter().collect(),
        }
    }

    fn subnets(&self, state: &State) -> Vec<Subnet> {
        let named =
            [&self.config.subnets, &state.pod_subnets].into_iter().find(|subnets| !subnets.is_empty());
        let mut subnets = named.cloned().unwrap_or_else(|| {
            let ipv6 = sysctl::has_ipv6();
            let all = DEFAULT_SUBNETS.iter().filter_map(|text| Subnet::parse(text).ok());
            all.filter(|subnet| subnet.is_ipv4() || ipv6).collect()
        });
        // The first address is the pod's primary one, in the order that was named.
        subnets.dedup();
        subnets
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wiring(pod: &PodId, holding: &Holding) -> Wiring {
    Wiring {
        veth: veth_name(pod),
        leases: holding.leases.clone(),
        elements: rules::elements(&holding.ports, &holding.leases),
        udp: rules::udp_ports(&holding.ports, &holding.leases).collect(),
    }
}

fn veth_name(pod: &PodId) -> String {
    format!("{VETH_PREFIX}{:.10}", pod.as_str())
}
