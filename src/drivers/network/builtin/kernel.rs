//! The one thread that talks netlink: bridge, veths and rules of the built-in network, in the kernel.
//! What does not live here: who gets which address, and records.

use std::collections::HashSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::rules::{self, Element};
use super::subnet::Subnet;
use super::{BuiltInError, Lease, sysctl};
use crate::drivers::network::netlink::link::{self, Address, Link, Veth};
use crate::drivers::network::netlink::nft::Transaction;
use crate::drivers::network::netlink::socket::Socket;
use crate::drivers::network::netlink::{NetlinkError, conntrack};
use crate::telemetry::Leak;

/// What the bridge and the rules shall be.
#[derive(Clone)]
pub struct Wanted {
    /// Name of the bridge.
    pub bridge: String,
    /// Alias of the bridge: tells whose it is.
    pub owner: String,
    /// 0: that of the host's way out.
    pub mtu: u32,
    /// Hide pods behind the host's address.
    pub masquerade: bool,
    /// Networks that pods get addresses of.
    pub subnets: Vec<Subnet>,
    /// Networks that living pods are in: their rules stay.
    pub used: Vec<Subnet>,
}

/// One pod's part of the network.
pub struct Wiring {
    /// Host's end of the veth.
    pub veth: String,
    /// The pod's addresses.
    pub leases: Vec<Lease>,
    /// Its host ports.
    pub elements: Vec<Element>,
    /// UDP host ports, whose old connections are forgotten.
    pub udp: Vec<(IpAddr, u16)>,
}

type Job = Box<dyn FnOnce(&mut Kernel) + Send>;

/// The handle of the thread; it ends when the last handle is dropped.
#[derive(Clone)]
pub struct Worker(mpsc::Sender<Job>);

impl Worker {
    /// Starts the thread in the network namespace of the caller.
    pub fn start() -> Result<Self, BuiltInError> {
        let failed = |source| BuiltInError::Thread { source };
        let (jobs, queue) = mpsc::channel::<Job>();
        let home = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let mut kernel = Kernel { route: Socket::route()?, filter: Socket::netfilter()?, home, ready: None };
        let run = move || {
            while let Ok(job) = queue.recv() {
                job(&mut kernel);
            }
        };
        std::thread::Builder::new().name("network".into()).spawn(run).map_err(failed)?;
        Ok(Self(jobs))
    }

    /// Runs a job on the thread; it runs to its end even if the caller stops waiting.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Kernel) -> Result<T, BuiltInError> + Send + 'static,
    ) -> Result<T, BuiltInError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |kernel| {
            let _ = done.send(job(kernel));
        });
        self.0.send(job).map_err(|_| BuiltInError::Stopped)?;
        result.await.map_err(|_| BuiltInError::Stopped)?
    }
}

/// State of the thread.
pub struct Kernel {
    route: Socket,
    filter: Socket,
    home: File,
    ready: Option<(u32, u32)>,
}

impl Kernel {
    /// Bridge and rules are to be looked at again before the next pod.
    pub fn forget(&mut self) {
        self.ready = None;
    }

    /// Makes bridge, kernel parameters and rules, with the elements of all living pods; index and MTU of the bridge.
    pub fn ensure(&mut self, wanted: &Wanted, elements: &[Element]) -> Result<(u32, u32), BuiltInError> {
        if let Some(ready) = self.ready {
            return Ok(ready);
        }
        let bridge = self.ensure_bridge(wanted)?;
        sysctl::forward(wanted.subnets.iter().any(|subnet| !subnet.is_ipv4()))?;
        sysctl::set(&format!("net/ipv4/conf/{}/route_localnet", wanted.bridge), "1")?;
        sysctl::set_if_there(&format!("net/ipv6/conf/{}/accept_ra", wanted.bridge), "0")?;
        let table = table_name(&wanted.bridge);
        let mut transaction = Transaction::new(&table);
        let mut subnets = wanted.subnets.clone();
        subnets.extend(wanted.used.iter().filter(|subnet| !wanted.subnets.contains(subnet)));
        rules::table(&mut transaction, &wanted.bridge, &subnets, wanted.masquerade);
        rules::add(&mut transaction, elements);
        self.commit(transaction, || format!("write nftables table {table}"))?;
        Ok(*self.ready.insert(bridge))
    }

    fn ensure_bridge(&mut self, wanted: &Wanted) -> Result<(u32, u32), BuiltInError> {
        let name = &wanted.bridge;
        self.check_overlap(wanted)?;
        if link::find(&mut self.route, name)?.is_none() {
            link::make_bridge(&mut self.route, name, mac_of(wanted.subnets.first().map(Subnet::gateway)))?;
        }
        let found = link::find(&mut self.route, name)?;
        let bridge = found
            .ok_or_else(|| NetlinkError::new(format!("find bridge {name}"), nix::errno::Errno::ENODEV))?;
        check_owner(&bridge, wanted)?;
        let mtu = if wanted.mtu == 0 { self.uplink_mtu()? } else { wanted.mtu };
        if bridge.mtu != mtu {
            link::set_mtu(&mut self.route, &bridge, mtu)?;
        }
        let gateways: Vec<_> =
            wanted.subnets.iter().chain(&wanted.used).map(|s| (s.gateway(), s.prefix())).collect();
        for (ip, prefix) in &gateways {
            link::add_address(&mut self.route, &Address { index: bridge.index, ip: *ip, prefix: *prefix })?;
        }
        for old in link::addresses(&mut self.route)?.iter().filter(|address| address.index == bridge.index) {
            if !gateways.contains(&(old.ip, old.prefix)) {
                link::remove_address(&mut self.route, old)?;
            }
        }
        link::claim(&mut self.route, &bridge, &wanted.owner)?;
        Ok((bridge.index, mtu))
    }

    fn check_overlap(&mut self, wanted: &Wanted) -> Result<(), BuiltInError> {
        let links = link::list(&mut self.route)?;
        for address in link::addresses(&mut self.route)? {
            let Some(link) = links.iter().find(|link| link.index == address.index) else {
                continue;
            };
            let other = Subnet::of(address.ip, address.prefix);
            let clash = wanted.subnets.iter().find(|subnet| subnet.overlaps(&other));
            if let Some(subnet) = clash.filter(|_| link.name != wanted.bridge) {
                return Err(BuiltInError::Overlap { subnet: *subnet, other, link: link.name.clone() });
            }
        }
        Ok(())
    }

    fn uplink_mtu(&mut self) -> Result<u32, BuiltInError> {
        // /proc/net is the process's namespace; this thread's may be another one in tests.
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
        let default = routes.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            let name = fields.next()?;
            (fields.next()? == "00000000").then(|| name.to_string())
        });
        let Some(name) = default else { return Ok(1500) };
        Ok(link::find(&mut self.route, &name)?.map_or(1500, |link| link.mtu))
    }

    /// Wires a pod; on failure nothing of it is left.
    pub fn attach(
        &mut self,
        wanted: &Wanted,
        living: &[Element],
        netns: &OwnedFd,
        wiring: &Wiring,
    ) -> Result<[u8; 6], BuiltInError> {
        let name = &wanted.bridge;
        let (bridge, mtu) = self.ensure(wanted, living)?;
        let veth = Veth {
            host: &wiring.veth,
            bridge,
            peer: super::INTERFACE,
            peer_mac: wiring
                .leases
                .iter()
                .find(|lease| lease.ip.is_ipv4())
                .map(|lease| mac_of(Some(lease.ip))),
            mtu,
            netns: netns.as_fd(),
        };
        if let Err(error) = link::make_veth(&mut self.route, &veth) {
            if !error.is(libc::EEXIST) {
                let _ = link::remove(&mut self.route, &wiring.veth);
            }
            return Err(error.into());
        }
        let wired = self
            .inside(netns, || configure_inside(wiring))
            .and_then(|mac| self.open_ports(name, wiring).map(|()| mac));
        if wired.is_err() {
            // The error that began this is the one to tell.
            let _ = link::remove(&mut self.route, &wiring.veth);
        }
        wired
    }

    fn open_ports(&mut self, bridge: &str, wiring: &Wiring) -> Result<(), BuiltInError> {
        if wiring.elements.is_empty() {
            return Ok(());
        }
        let table = table_name(bridge);
        let mut transaction = Transaction::new(&table);
        rules::add(&mut transaction, &wiring.elements);
        self.commit(transaction, || format!("add host ports to nftables table {table}"))?;
        for (ip, port) in &wiring.udp {
            let _ = conntrack::forget_udp_to_port(&mut self.filter, ip, *port);
        }
        Ok(())
    }

    /// Removes host ports from the maps; those that are gone are fine.
    pub fn close_ports(&mut self, bridge: &str, wiring: &Wiring) -> Result<(), BuiltInError> {
        let table = table_name(bridge);
        for element in &wiring.elements {
            let mut transaction = Transaction::new(&table);
            rules::remove(&mut transaction, std::slice::from_ref(element));
            match self.commit(transaction, || format!("remove host ports from nftables table {table}")) {
                Err(BuiltInError::Netlink(error)) if error.is(libc::ENOENT) => {}
                result => result?,
            }
        }
        for ip in wiring.udp.iter().map(|(ip, _)| ip).collect::<HashSet<_>>() {
            let _ = conntrack::forget_udp_to_pod(&mut self.filter, ip);
        }
        Ok(())
    }

    fn commit(
        &mut self,
        transaction: Transaction<'_>,
        operation: impl Fn() -> String,
    ) -> Result<(), BuiltInError> {
        let result = self.filter.apply(transaction.finish());
        Ok(result.map_err(|(_, source)| NetlinkError::new(operation(), source))?)
    }

    /// Runs an action in another network namespace.
    pub fn inside<T>(
        &mut self,
        netns: &OwnedFd,
        action: impl FnOnce() -> Result<T, BuiltInError>,
    ) -> Result<T, BuiltInError> {
        let failed = |errno| NetlinkError::new("enter the pod's network namespace", errno);
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(failed)?;
        let result = action();
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            // Every later link would be made in that pod: nothing may run on this thread again.
            tracing::error!(%errno, "the network thread cannot return to the host's network namespace");
            std::process::abort();
        }
        result
    }

    /// Whether the host's end of a veth is gone.
    pub fn is_gone(&mut self, veth: &str) -> bool {
        matches!(link::find(&mut self.route, veth), Ok(None))
    }

    /// Removes bridge and rules, if they are ours.
    pub fn remove(&mut self, wanted: &Wanted) -> Result<(), BuiltInError> {
        self.ready = None;
        let found = link::find(&mut self.route, &wanted.bridge)?;
        if found.is_none_or(|bridge| bridge.alias.as_deref() != Some(&wanted.owner)) {
            return Ok(());
        }
        let table = table_name(&wanted.bridge);
        let mut transaction = Transaction::new(&table);
        transaction.drop_table();
        match self.commit(transaction, || format!("remove nftables table {table}")) {
            Err(BuiltInError::Netlink(error)) if error.is(libc::ENOENT) => {}
            result => result?,
        }
        Ok(link::remove(&mut self.route, &wanted.bridge)?)
    }

    /// Removes all veths on our bridge that are not kept.
    pub fn sweep(&mut self, wanted: &Wanted, keep: &HashSet<String>) -> Result<(), BuiltInError> {
        let links = link::list(&mut self.route)?;
        let Some(bridge) = links.iter().find(|link| link.name == wanted.bridge) else {
            return Ok(());
        };
        if bridge.alias.as_deref() != Some(&wanted.owner) {
            return Ok(());
        }
        let ours =
            |link: &&Link| link.master == Some(bridge.index) && link.name.starts_with(super::VETH_PREFIX);
        for stale in links.iter().filter(ours).filter(|link| !keep.contains(&link.name)) {
            let removed = link::remove(&mut self.route, &stale.name);
            Leak::Address.note(&removed);
            removed?;
        }
        Ok(())
    }
}

fn configure_inside(wiring: &Wiring) -> Result<[u8; 6], BuiltInError> {
    let mut socket = Socket::route()?;
    let name = super::INTERFACE;
    let found = link::find(&mut socket, name)?;
    let link = found
        .ok_or_else(|| NetlinkError::new(format!("find {name} in the pod"), nix::errno::Errno::ENODEV))?;
    for (key, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/{key}"), value)?;
    }
    let address = |lease: &Lease| Address { index: link.index, ip: lease.ip, prefix: lease.prefix };
    let addresses: Vec<_> = wiring.leases.iter().map(address).collect();
    let gateways: Vec<_> = wiring.leases.iter().map(|lease| lease.gateway).collect();
    link::configure(&mut socket, &link, &addresses, &gateways)?;
    Ok(link.mac.unwrap_or_default())
}

fn check_owner(bridge: &Link, wanted: &Wanted) -> Result<(), BuiltInError> {
    let name = || wanted.bridge.clone();
    match &bridge.alias {
        _ if bridge.kind.as_deref() != Some("bridge") => Err(BuiltInError::NoBridge { name: name() }),
        Some(owner) if *owner == wanted.owner => Ok(()),
        Some(owner) => Err(BuiltInError::Foreign { name: name(), owner: owner.clone() }),
        // Ours, from a daemon that died between making and claiming it.
        None if !bridge.up => Ok(()),
        None => Err(BuiltInError::Foreign { name: name(), owner: "someone else than Berth".into() }),
    }
}

/// A pod that gets an address again keeps the hardware address that neighbours remember.
fn mac_of(ip: Option<IpAddr>) -> [u8; 6] {
    match ip {
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            [0x0a, 0x58, a, b, c, d]
        }
        Some(IpAddr::V6(ip)) => {
            let [.., a, b, c, d] = ip.octets();
            [0x0a, 0x59, a, b, c, d]
        }
        None => [0x0a, 0x58, 0, 0, 0, 1],
    }
}

fn table_name(bridge: &str) -> String {
    format!("berth-{bridge}")
}
