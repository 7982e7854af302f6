//! Forgetting connections by ctnetlink. What does not live here: when.

use std::net::IpAddr;

use nix::libc;

use super::link::octets;
use super::message::{ACK, Batch, Head};
use super::socket::Socket;

const SUBSYSTEM: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;

/// Forgets every UDP connection that was led to this address. Kernels before 6.8 refuse: then entries run out by themselves.
pub fn forget_udp_to_pod(socket: &mut Socket, ip: &IpAddr) -> std::io::Result<()> {
    const ADDRESS_SOURCE: u32 = 1;
    const PROTOCOL: u32 = 1 << 3;
    let kind = if ip.is_ipv4() { 1 } else { 3 };
    let mut batch = Batch::new();
    batch.message(&head(ip), |m| {
        m.nest(TUPLE_REPLY, |m| {
            m.nest(1, |m| m.bytes(kind, &octets(ip)));
            m.nest(2, |m| m.u8(1, libc::IPPROTO_UDP as u8));
        });
        m.nest(FILTER, |m| m.u32(2, ADDRESS_SOURCE | PROTOCOL));
    });
    socket.apply(batch).map_err(|(_, error)| error)
}

/// Forgets every UDP connection to a port of the host, of the address family of `ip`: one that began before the pod
/// was there would never reach it.
pub fn forget_udp_to_port(socket: &mut Socket, ip: &IpAddr, port: u16) -> std::io::Result<()> {
    const PROTOCOL: u32 = 1 << 3;
    const PORT: u32 = 1 << 5;
    let mut batch = Batch::new();
    batch.message(&head(ip), |m| {
        m.nest(TUPLE_ORIGINAL, |m| {
            m.nest(2, |m| {
                m.u8(1, libc::IPPROTO_UDP as u8);
                m.bytes(3, &port.to_be_bytes());
            });
        });
        m.nest(FILTER, |m| m.u32(1, PROTOCOL | PORT));
    });
    socket.apply(batch).map_err(|(_, error)| error)
}

fn head(ip: &IpAddr) -> Head<'static> {
    // Version 1, so that the kernel looks at the family.
    let family: &'static [u8] =
        if ip.is_ipv4() { &[libc::AF_INET as u8, 1, 0, 0] } else { &[libc::AF_INET6 as u8, 1, 0, 0] };
    Head { kind: SUBSYSTEM << 8 | DELETE, flags: ACK, family }
}
