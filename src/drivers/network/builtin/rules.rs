//! The nftables rules of the built-in network: masquerade and host ports. A pod costs only elements of maps.
//! What does not live here: how a rule is put to the kernel.

use std::net::IpAddr;

use nix::libc;

use super::Lease;
use super::subnet::Subnet;
use crate::drivers::network::netlink::expression::{Base, Expression, Meta, Verdict};
use crate::drivers::network::netlink::link::octets;
use crate::drivers::network::netlink::nft::{Hook, Map, Transaction};
use crate::pods::spec::{PortMapping, Protocol};

const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
const PROTOCOL_PORT: u32 = 12 << 6 | 13;
const V4: u32 = 7;
const V6: u32 = 8;

const MAPS: [Map; 4] = [
    Map { name: "ports4", sizes: (8, 8), types: (PROTOCOL_PORT, V4 << 6 | 13) },
    Map { name: "ports6", sizes: (8, 20), types: (PROTOCOL_PORT, V6 << 6 | 13) },
    Map { name: "ports4_at", sizes: (12, 8), types: (V4 << 12 | PROTOCOL_PORT, V4 << 6 | 13) },
    Map { name: "ports6_at", sizes: (24, 20), types: (V6 << 12 | PROTOCOL_PORT, V6 << 6 | 13) },
];

/// One element: the map, its key, its value.
pub struct Element(Map, Vec<u8>, Vec<u8>);

/// The elements of a pod's host ports.
pub fn elements(ports: &[PortMapping], leases: &[Lease]) -> Vec<Element> {
    let pairs = ports.iter().flat_map(|port| leases.iter().map(move |lease| (port, lease)));
    pairs.filter_map(|(port, lease)| element(port, lease)).collect()
}

fn element(port: &PortMapping, lease: &Lease) -> Option<Element> {
    let host_ip = match port.host_ip {
        Some(ip) if ip.is_ipv4() != lease.ip.is_ipv4() => return None,
        ip => ip.filter(|ip| !ip.is_unspecified()),
    };
    let protocol = match port.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    } as u8;
    let map = MAPS[usize::from(lease.ip.is_ipv6()) + 2 * usize::from(host_ip.is_some())];
    let mut key = host_ip.as_ref().map(octets).unwrap_or_default();
    key.extend_from_slice(&[protocol, 0, 0, 0]);
    key.extend_from_slice(&padded(port.host_port));
    let mut value = octets(&lease.ip);
    value.extend_from_slice(&padded(port.container_port));
    Some(Element(map, key, value))
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Adds elements.
pub fn add(transaction: &mut Transaction<'_>, elements: &[Element]) {
    for Element(map, key, value) in elements {
        transaction.add_element(map, key, value);
    }
}

/// Removes elements, which must all be there.
pub fn remove(transaction: &mut Transaction<'_>, elements: &[Element]) {
    for Element(map, key, _) in elements {
        transaction.remove_element(map, key);
    }
}

/// The whole table as it shall be, but for the elements: whatever was in it goes in the same instant.
pub fn table(transaction: &mut Transaction<'_>, bridge: &str, subnets: &[Subnet], masquerade: bool) {
    let hooks = [
        ("guard", "filter", libc::NF_INET_PRE_ROUTING, -300),
        ("prerouting", "nat", libc::NF_INET_PRE_ROUTING, -100),
        ("output", "nat", libc::NF_INET_LOCAL_OUT, -100),
        ("postrouting", "nat", libc::NF_INET_POST_ROUTING, 100),
    ];
    transaction.table();
    for (id, map) in (1..).zip(&MAPS) {
        transaction.empty_map(map, id);
    }
    transaction.empty_chain("ports", None);
    for (name, kind, number, priority) in hooks {
        transaction.empty_chain(name, Some(&Hook { number: number as u32, priority, kind }));
    }
    for (map, at) in [(MAPS[2], true), (MAPS[3], true), (MAPS[0], false), (MAPS[1], false)] {
        transaction.rule("ports", &port_rule(&map, at));
    }
    const LOCAL: u32 = libc::RTN_LOCAL as u32;
    for chain in ["prerouting", "output"] {
        transaction.rule(
            chain,
            &[
                Expression::DestinationType(0),
                Expression::Equal(0, LOCAL.to_ne_bytes().to_vec()),
                Expression::Verdict(Verdict::Jump, "ports"),
            ],
        );
    }
    // route_localnet lets 127.0.0.1 be reached through host ports; without this, pods could reach the host's own.
    for offset in [12, 16] {
        let mut rule = vec![Expression::Meta(Meta::InName, 0), Expression::Equal(0, link_name(bridge))];
        rule.extend(loopback(offset));
        rule.push(Expression::Verdict(Verdict::Drop, ""));
        transaction.rule("guard", &rule);
    }
    postrouting(transaction, bridge, subnets, masquerade);
}

fn postrouting(transaction: &mut Transaction<'_>, bridge: &str, subnets: &[Subnet], masquerade: bool) {
    let leaves = [Expression::Meta(Meta::OutName, 0), Expression::Equal(0, link_name(bridge))];
    // A process of the host that came by 127.0.0.1: the pod could not answer that address.
    let mut rule = leaves.to_vec();
    rule.extend(loopback(12));
    rule.push(Expression::Masquerade);
    transaction.rule("postrouting", &rule);
    for subnet in subnets {
        // From a pod by a host port to a pod of the same bridge: the answer must come back through the host.
        const DESTINATION_NAT: u32 = 1 << 5;
        let mut rule = leaves.to_vec();
        rule.extend([
            Expression::ConntrackStatus(0),
            Expression::Mask(0, DESTINATION_NAT.to_ne_bytes().to_vec()),
            Expression::Differs(0, vec![0; 4]),
        ]);
        rule.extend(inside(subnet, true));
        rule.push(Expression::Masquerade);
        transaction.rule("postrouting", &rule);
        if masquerade {
            let mut rule = inside(subnet, true);
            rule.extend(outside(subnet));
            rule.push(Expression::Masquerade);
            transaction.rule("postrouting", &rule);
        }
    }
}

fn port_rule(map: &Map, at: bool) -> Vec<Expression> {
    let (family, offset, length) = if map.sizes.1 == 8 { (IPV4, 16, 4) } else { (IPV6, 24, 16) };
    let mut rule = vec![Expression::Meta(Meta::Family, 0), Expression::Equal(0, vec![family])];
    let mut register = 0;
    if at {
        rule.push(Expression::Payload(Base::Network, offset, length, 0));
        register = length / 4;
    }
    rule.extend([
        Expression::Meta(Meta::Protocol, register),
        Expression::Payload(Base::Transport, 2, 2, register + 1),
        Expression::Lookup(map.name, 0, 8),
        Expression::Destination(family, 8, 8 + length / 4),
    ]);
    rule
}

fn loopback(offset: u32) -> Vec<Expression> {
    vec![
        Expression::Meta(Meta::Family, 0),
        Expression::Equal(0, vec![IPV4]),
        Expression::Payload(Base::Network, offset, 1, 0),
        Expression::Equal(0, vec![127]),
    ]
}

fn inside(subnet: &Subnet, source: bool) -> Vec<Expression> {
    let family = if subnet.is_ipv4() { IPV4 } else { IPV6 };
    let mut rule = vec![Expression::Meta(Meta::Family, 0), Expression::Equal(0, vec![family])];
    rule.extend(masked(subnet, source));
    rule.push(Expression::Equal(0, octets(&subnet.base())));
    rule
}

fn outside(subnet: &Subnet) -> Vec<Expression> {
    let mut rule = masked(subnet, false);
    rule.push(Expression::Differs(0, octets(&subnet.base())));
    rule
}

fn masked(subnet: &Subnet, source: bool) -> Vec<Expression> {
    let (offset, length) = match (subnet.is_ipv4(), source) {
        (true, true) => (12, 4),
        (true, false) => (16, 4),
        (false, true) => (8, 16),
        (false, false) => (24, 16),
    };
    vec![Expression::Payload(Base::Network, offset, length, 0), Expression::Mask(0, subnet.mask())]
}

fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    bytes
}

/// Whether any of the ports is UDP, whose connections outlive the rules.
pub fn udp_ports<'a>(
    ports: &'a [PortMapping],
    leases: &'a [Lease],
) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.flat_map(|port| leases.iter().map(|lease| (lease.ip, port.host_port)))
}
