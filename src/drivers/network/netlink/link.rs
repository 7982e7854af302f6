//! Links, addresses and routes by rtnetlink: bridge, veth pair, and what is set inside a pod's namespace.
//! What does not live here: which names and addresses, and netfilter.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use super::NetlinkError;
use super::message::{
    ACK, Attributes, Batch, CREATE, DUMP, EXCL, Head, attributes, read_u16, read_u32, text,
};
use super::socket::Socket;

const VETH_INFO_PEER: u16 = 1;
const BR_MCAST_SNOOPING: u16 = 23;
const BRPORT_MODE: u16 = 4;
const UP: u32 = libc::IFF_UP as u32;

/// A link, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IFF_UP is set.
    pub up: bool,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// In bytes.
    pub mtu: u32,
    /// `ip link set alias`.
    pub alias: Option<String>,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// IFLA_INFO_KIND: `bridge`, `veth`; None for hardware.
    pub kind: Option<String>,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
}

/// A veth pair with one end in another namespace.
pub struct Veth<'a> {
    /// Name of this end.
    pub host: &'a str,
    /// The bridge that this end joins.
    pub bridge: u32,
    /// Name of the other end.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub peer_mac: Option<[u8; 6]>,
    /// Of both, in bytes.
    pub mtu: u32,
    /// Where the other end is made.
    pub netns: BorrowedFd<'a>,
}

/// Lists every link of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut ask = Batch::new();
    ask.message(&Head { kind: libc::RTM_GETLINK, flags: DUMP, family: &interface(0, 0, 0) }, |_| {});
    let answers = socket.dump(ask).map_err(|source| NetlinkError::new("list network links", source))?;
    Ok(answers.iter().filter_map(|payload| decode_link(payload)).collect())
}

/// The link of a name, if there is one.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut ask = Batch::new();
    let head = Head { kind: libc::RTM_GETLINK, flags: 0, family: &interface(0, 0, 0) };
    ask.message(&head, |m| m.text(libc::IFLA_IFNAME, name));
    match socket.ask(ask) {
        Ok(payload) => Ok(decode_link(&payload)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(NetlinkError::new(format!("look up network link {name}"), error)),
    }
}

/// Makes a bridge that is down; a name that is taken is an error.
pub fn make_bridge(socket: &mut Socket, name: &str, mac: [u8; 6]) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let head = Head { kind: libc::RTM_NEWLINK, flags: CREATE | EXCL | ACK, family: &interface(0, 0, 0) };
    batch.message(&head, |m| {
        m.text(libc::IFLA_IFNAME, name);
        m.bytes(libc::IFLA_ADDRESS, &mac);
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_KIND, "bridge");
            m.nest(libc::IFLA_INFO_DATA, |m| m.u8(BR_MCAST_SNOOPING, 0));
        });
    });
    apply(socket, batch, || format!("make bridge {name}"))
}

/// Writes an alias on a link and brings it up.
pub fn claim(socket: &mut Socket, link: &Link, alias: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let head = Head { kind: libc::RTM_NEWLINK, flags: ACK, family: &interface(link.index, UP, UP) };
    batch.message(&head, |m| m.bytes(libc::IFLA_IFALIAS, alias.as_bytes()));
    apply(socket, batch, || format!("bring up bridge {}", link.name))
}

/// Sets a link's MTU.
pub fn set_mtu(socket: &mut Socket, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let head = Head { kind: libc::RTM_NEWLINK, flags: ACK, family: &interface(link.index, 0, 0) };
    batch.message(&head, |m| m.u32(libc::IFLA_MTU, mtu));
    apply(socket, batch, || format!("set the MTU of {} to {mtu}", link.name))
}

/// Makes a veth pair: this end up, on the bridge, in hairpin mode; the other one down, in its namespace.
pub fn make_veth(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let head = Head { kind: libc::RTM_NEWLINK, flags: CREATE | EXCL | ACK, family: &interface(0, UP, UP) };
    batch.message(&head, |m| {
        m.text(libc::IFLA_IFNAME, veth.host);
        m.u32(libc::IFLA_MASTER, veth.bridge);
        m.u32(libc::IFLA_MTU, veth.mtu);
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_KIND, "veth");
            m.nest(libc::IFLA_INFO_DATA, |m| m.nest(VETH_INFO_PEER, |m| write_peer(m, veth)));
        });
    });
    // A pod may reach itself through its own host port; with br_netfilter that frame turns round at the port.
    let head = Head { kind: libc::RTM_NEWLINK, flags: ACK, family: &interface(0, 0, 0) };
    batch.message(&head, |m| {
        m.text(libc::IFLA_IFNAME, veth.host);
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_SLAVE_KIND, "bridge");
            m.nest(libc::IFLA_INFO_SLAVE_DATA, |m| m.u8(BRPORT_MODE, 1));
        });
    });
    apply(socket, batch, || format!("make veth pair {} and {}", veth.host, veth.peer))
}

fn write_peer(m: &mut Attributes<'_>, veth: &Veth<'_>) {
    m.raw(&interface(0, 0, 0));
    m.text(libc::IFLA_IFNAME, veth.peer);
    m.u32(libc::IFLA_NET_NS_FD, veth.netns.as_raw_fd() as u32);
    m.u32(libc::IFLA_MTU, veth.mtu);
    if let Some(mac) = veth.peer_mac {
        m.bytes(libc::IFLA_ADDRESS, &mac);
    }
}

/// Brings a link up with its addresses and a default route through each gateway, in one send.
pub fn configure(
    socket: &mut Socket,
    link: &Link,
    addresses: &[Address],
    gateways: &[IpAddr],
) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(
        &Head { kind: libc::RTM_NEWLINK, flags: ACK, family: &interface(link.index, UP, UP) },
        |_| {},
    );
    for address in addresses {
        push_address(&mut batch, libc::RTM_NEWADDR, address);
    }
    for gateway in gateways {
        let family =
            [family(gateway), 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE];
        let header = [&family[..], &[libc::RTN_UNICAST], &[0; 4]].concat();
        let head = Head { kind: libc::RTM_NEWROUTE, flags: CREATE | EXCL | ACK, family: &header };
        batch.message(&head, |m| {
            m.bytes(libc::RTA_GATEWAY, &octets(gateway));
            m.u32(libc::RTA_OIF, link.index);
        });
    }
    apply(socket, batch, || format!("bring up {} in the pod", link.name))
}

/// Adds an address to a link; one that is there already is fine.
pub fn add_address(socket: &mut Socket, address: &Address) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    push_address(&mut batch, libc::RTM_NEWADDR, address);
    match socket.apply(batch) {
        Err((_, error)) if error.raw_os_error() != Some(libc::EEXIST) => {
            Err(NetlinkError::new(format!("add address {}/{}", address.ip, address.prefix), error))
        }
        _ => Ok(()),
    }
}

/// Removes an address from a link.
pub fn remove_address(socket: &mut Socket, address: &Address) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    push_address(&mut batch, libc::RTM_DELADDR, address);
    apply(socket, batch, || format!("remove address {}/{}", address.ip, address.prefix))
}

fn push_address(batch: &mut Batch, kind: u16, address: &Address) {
    // No duplicate detection: the allocator knows that the address is free, and a pod needs it at once.
    let flags = if address.ip.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut header = vec![family(&address.ip), address.prefix, flags, libc::RT_SCOPE_UNIVERSE];
    header.extend_from_slice(&address.index.to_ne_bytes());
    let flags = if kind == libc::RTM_NEWADDR { CREATE | EXCL | ACK } else { ACK };
    batch.message(&Head { kind, flags, family: &header }, |m| {
        m.bytes(libc::IFA_LOCAL, &octets(&address.ip));
        m.bytes(libc::IFA_ADDRESS, &octets(&address.ip));
        if let Some(broadcast) = broadcast(address).filter(|_| kind == libc::RTM_NEWADDR) {
            m.bytes(libc::IFA_BROADCAST, &broadcast);
        }
    });
}

fn broadcast(address: &Address) -> Option<[u8; 4]> {
    match address.ip {
        IpAddr::V4(ip) if address.prefix < 31 => {
            let hosts = u32::MAX.checked_shr(u32::from(address.prefix)).unwrap_or(0);
            Some((u32::from(ip) | hosts).to_be_bytes())
        }
        _ => None,
    }
}

/// Every address of every link of the socket's namespace, without link-local ones.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let mut ask = Batch::new();
    ask.message(&Head { kind: libc::RTM_GETADDR, flags: DUMP, family: &[0; 8] }, |_| {});
    let answers = socket.dump(ask).map_err(|source| NetlinkError::new("list addresses", source))?;
    let all = answers.iter().filter_map(|payload| decode_address(payload));
    Ok(all.filter(|address| !is_link_local(&address.ip)).collect())
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Removes a link and with it the other end of its pair; none of that name is fine. Slow: 20 ms and more.
pub fn remove(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let head = Head { kind: libc::RTM_DELLINK, flags: ACK, family: &interface(0, 0, 0) };
    batch.message(&head, |m| m.text(libc::IFLA_IFNAME, name));
    match apply(socket, batch, || format!("remove network link {name}")) {
        Err(error) if error.is(libc::ENODEV) => Ok(()),
        result => result,
    }
}

fn apply(socket: &mut Socket, batch: Batch, operation: impl Fn() -> String) -> Result<(), NetlinkError> {
    socket.apply(batch).map_err(|(_, source): (u32, io::Error)| NetlinkError::new(operation(), source))
}

fn interface(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn family(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// An address's bytes in network order.
pub fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn decode_link(payload: &[u8]) -> Option<Link> {
    let index = read_u32(payload, 4)?;
    let up = read_u32(payload, 8)? & UP != 0;
    let mut link =
        Link { index, name: String::new(), up, master: None, mtu: 0, alias: None, mac: None, kind: None };
    for (kind, value) in attributes(payload, 16) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MASTER => link.master = read_u32(value, 0),
            libc::IFLA_MTU => link.mtu = read_u32(value, 0)?,
            libc::IFLA_IFALIAS => link.alias = Some(text(value)),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_LINKINFO => {
                link.kind =
                    attributes(value, 0).find(|(k, _)| *k == libc::IFLA_INFO_KIND).map(|(_, v)| text(v));
            }
            _ => {}
        }
    }
    Some(link)
}

fn decode_address(payload: &[u8]) -> Option<Address> {
    let index = read_u32(payload, 4)?;
    let prefix = read_u16(payload, 0)?.to_ne_bytes()[1];
    let found = attributes(payload, 8);
    let mut ip = None;
    for (kind, value) in found {
        // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on a point-to-point link.
        if kind == libc::IFA_LOCAL || (kind == libc::IFA_ADDRESS && ip.is_none()) {
            ip = match value.len() {
                4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            };
        }
    }
    Some(Address { index, ip: ip?, prefix })
}
