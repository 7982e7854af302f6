//! Which pod has which address and host port, in memory: taken at once, given back when the veth is gone.
//! What does not live here: records on disk, and making anything in the kernel.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::Lease;
use super::subnet::Subnet;
use crate::ids::PodId;
use crate::pods::spec::{PortMapping, Protocol};

/// Why a pod gets no address or port.
#[derive(Debug, thiserror::Error)]
pub enum TakenError {
    /// Every address is in use.
    #[error("subnet {0} has no free address left")]
    Exhausted(Subnet),
    /// Two pods want one port.
    #[error("host port {port} is already in use by pod {holder}")]
    Port {
        /// `80/TCP`, with the host's address if one is named.
        port: String,
        /// `namespace/name` of the other pod.
        holder: String,
    },
}

/// The allocator.
#[derive(Default)]
pub struct Addresses {
    holders: HashMap<IpAddr, Holder>,
    next: HashMap<Subnet, u128>,
    ports: BTreeMap<PodId, (String, Vec<PortMapping>)>,
}

enum Holder {
    Pod,
    /// The pod has gone, its veth may not have.
    Leaving(PodId),
}

impl Addresses {
    /// Takes one address of each subnet. `gone` tells whether a leaving pod's veth is gone.
    pub fn lease(
        &mut self,
        subnets: &[Subnet],
        mut gone: impl FnMut(&PodId) -> bool,
    ) -> Result<Vec<Lease>, TakenError> {
        let mut leases = Vec::new();
        for subnet in subnets {
            match self.find(subnet, &mut gone) {
                Some(ip) => {
                    self.holders.insert(ip, Holder::Pod);
                    leases.push(Lease { ip, prefix: subnet.prefix(), gateway: subnet.gateway() });
                }
                None => {
                    self.forget(&leases);
                    return Err(TakenError::Exhausted(*subnet));
                }
            }
        }
        Ok(leases)
    }

    fn find(&mut self, subnet: &Subnet, gone: &mut impl FnMut(&PodId) -> bool) -> Option<IpAddr> {
        let range = subnet.pods();
        let start = *self.next.get(subnet).filter(|next| range.contains(next)).unwrap_or(range.start());
        // A subnet can be huge: among one candidate more than there are holders, one is free.
        let candidates = (start..=*range.end()).chain(*range.start()..start).take(self.holders.len() + 1);
        let free =
            candidates.map(|number| (number, subnet.at(number))).find(|(_, ip)| match self.holders.get(ip) {
                None => true,
                Some(Holder::Pod) => false,
                Some(Holder::Leaving(pod)) => gone(pod),
            });
        let (number, ip) = free?;
        self.next.insert(*subnet, number + 1);
        Some(ip)
    }

    /// Notes what a pod had before the daemon started.
    pub fn restore(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.holders.insert(lease.ip, Holder::Pod);
            let subnet = Subnet::of(lease.ip, lease.prefix);
            let next = self.next.entry(subnet).or_default();
            *next = (*next).max(subnet.number(&lease.ip) + 1);
        }
    }

    /// The pod is going: its addresses wait for its veth.
    pub fn leave(&mut self, pod: &PodId, leases: &[Lease]) {
        for lease in leases {
            self.holders.insert(lease.ip, Holder::Leaving(pod.clone()));
        }
    }

    /// Pods that have left, but whose veths may still be there.
    pub fn leaving(&self) -> Vec<PodId> {
        let pods = self.holders.values();
        pods.filter_map(|holder| if let Holder::Leaving(pod) = holder { Some(pod.clone()) } else { None })
            .collect()
    }

    /// The addresses are free at once: nothing in the kernel has them.
    pub fn forget(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.holders.remove(&lease.ip);
        }
    }

    /// Takes the pod's host ports, all or none.
    pub fn take_ports(&mut self, pod: &PodId, name: &str, ports: &[PortMapping]) -> Result<(), TakenError> {
        for port in ports {
            let clash = |(holder, taken): &(String, Vec<PortMapping>)| {
                taken.iter().any(|other| clashes(port, other)).then(|| holder.clone())
            };
            let others = self.ports.iter().filter(|(id, _)| *id != pod).map(|(_, entry)| entry);
            if let Some(holder) = others.filter_map(clash).next() {
                return Err(TakenError::Port { port: describe(port), holder });
            }
        }
        if !ports.is_empty() {
            self.ports.insert(pod.clone(), (name.to_string(), ports.to_vec()));
        }
        Ok(())
    }

    /// Gives a pod's host ports back.
    pub fn release_ports(&mut self, pod: &PodId) {
        self.ports.remove(pod);
    }
}

/// None, 0.0.0.0 and :: stand for every address (of the family).
fn clashes(a: &PortMapping, b: &PortMapping) -> bool {
    let any = |ip: &Option<IpAddr>, other: &Option<IpAddr>| match ip {
        None => true,
        Some(ip) => ip.is_unspecified() && other.is_none_or(|other| other.is_ipv4() == ip.is_ipv4()),
    };
    let same_address = a.host_ip == b.host_ip || any(&a.host_ip, &b.host_ip) || any(&b.host_ip, &a.host_ip);
    a.protocol == b.protocol && a.host_port == b.host_port && same_address
}

fn describe(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match port.host_ip {
        Some(IpAddr::V6(ip)) => format!("[{ip}]:{}/{protocol}", port.host_port),
        Some(ip) => format!("{ip}:{}/{protocol}", port.host_port),
        None => format!("{}/{protocol}", port.host_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
        PortMapping { protocol, container_port: 1, host_port, host_ip: host_ip.map(|ip| ip.parse().unwrap()) }
    }

    #[test]
    fn an_address_is_not_reused_until_its_veth_is_gone() {
        let one = PodId::generate();
        let subnet = [Subnet::parse("10.0.0.0/30").unwrap()];
        let mut addresses = Addresses::default();
        let leases = addresses.lease(&subnet, |_| true).unwrap();
        assert!(addresses.lease(&subnet, |_| true).is_err(), "a held address is taken");
        addresses.leave(&one, &leases);
        assert!(matches!(addresses.lease(&subnet, |_| false), Err(TakenError::Exhausted(_))));
        assert_eq!(addresses.lease(&subnet, |pod| *pod == one).unwrap(), leases);
    }

    #[test]
    fn addresses_go_round_before_one_comes_again() {
        let subnet = [Subnet::parse("10.0.0.0/29").unwrap(), Subnet::parse("fd00::/64").unwrap()];
        let mut addresses = Addresses::default();
        let mut seen = Vec::new();
        for _ in 0..6 {
            let leases = addresses.lease(&subnet, |_| true).unwrap();
            seen.push(leases[0].ip.to_string());
            addresses.forget(&leases);
        }
        assert_eq!(seen, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]);
    }

    #[test]
    fn a_port_conflict_names_port_and_holder() {
        let mut addresses = Addresses::default();
        let (one, two) = (PodId::generate(), PodId::generate());
        addresses.take_ports(&one, "default/web", &[port(Protocol::Tcp, 80, None)]).unwrap();
        let error =
            addresses.take_ports(&two, "x/y", &[port(Protocol::Tcp, 80, Some("10.0.0.1"))]).unwrap_err();
        assert_eq!(error.to_string(), "host port 10.0.0.1:80/TCP is already in use by pod default/web");
        addresses.take_ports(&two, "x/y", &[port(Protocol::Udp, 80, Some("0.0.0.0"))]).unwrap();
        assert!(addresses.take_ports(&one, "a/b", &[port(Protocol::Udp, 80, Some("10.9.9.9"))]).is_err());
        addresses.take_ports(&one, "a/b", &[port(Protocol::Udp, 80, Some("::1"))]).unwrap();
        addresses.release_ports(&two);
        addresses.take_ports(&one, "a/b", &[port(Protocol::Udp, 80, None)]).unwrap();
    }
}
