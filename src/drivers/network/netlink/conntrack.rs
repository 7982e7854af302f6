//! Forgetting connections by ctnetlink. What does not live here: when.

use std::io;
use std::net::IpAddr;

use nix::libc;

use super::link::octets;
use super::message::{ACK, Attributes, Batch, DUMP, Head, attributes};
use super::socket::Socket;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
/// Length of the header of nfnetlink, before attributes.
const FAMILY: usize = 4;

/// Forgets every UDP connection that was led to this address.
pub fn forget_udp_to_pod(socket: &mut Socket, ip: &IpAddr) -> io::Result<()> {
    const ADDRESS_SOURCE: u32 = 1;
    const PROTOCOL: u32 = 1 << 3;
    let kind = if ip.is_ipv4() { 1 } else { 3 };
    forget(socket, ip, |m| {
        m.nest(TUPLE_REPLY, |m| {
            m.nest(1, |m| m.bytes(kind, &octets(ip)));
            m.nest(2, |m| m.u8(1, libc::IPPROTO_UDP as u8));
        });
        m.nest(FILTER, |m| m.u32(2, ADDRESS_SOURCE | PROTOCOL));
    })
}

/// Forgets every UDP connection to a port of the host, of the address family of `ip`: one that began before the pod
/// was there would never reach it.
pub fn forget_udp_to_port(socket: &mut Socket, ip: &IpAddr, port: u16) -> io::Result<()> {
    const PROTOCOL: u32 = 1 << 3;
    const PORT: u32 = 1 << 5;
    forget(socket, ip, |m| {
        m.nest(TUPLE_ORIGINAL, |m| {
            m.nest(2, |m| {
                m.u8(1, libc::IPPROTO_UDP as u8);
                m.bytes(3, &port.to_be_bytes());
            });
        });
        m.nest(FILTER, |m| m.u32(1, PROTOCOL | PORT));
    })
}

fn forget(socket: &mut Socket, ip: &IpAddr, filter: impl Fn(&mut Attributes<'_>)) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(&head(ip, DELETE, ACK), &filter);
    match socket.apply(batch) {
        // Before Linux 6.8 a filter only lists.
        Err((_, error)) if error.raw_os_error() == Some(libc::EINVAL) => one_by_one(socket, ip, filter),
        result => result.map_err(|(_, error)| error),
    }
}

fn one_by_one(socket: &mut Socket, ip: &IpAddr, filter: impl Fn(&mut Attributes<'_>)) -> io::Result<()> {
    let mut list = Batch::new();
    list.message(&head(ip, GET, DUMP), filter);
    let mut batch = Batch::new();
    for entry in socket.dump(list)? {
        let Some((_, tuple)) = attributes(&entry, FAMILY).find(|(kind, _)| *kind == TUPLE_ORIGINAL) else {
            continue;
        };
        batch.message(&head(ip, DELETE, 0), |m| m.nest(TUPLE_ORIGINAL, |m| m.raw(tuple)));
    }
    if batch.count() == 0 {
        return Ok(());
    }
    batch.await_last();
    match socket.apply(batch) {
        // One that has run out meanwhile.
        Err((_, error)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(|(_, error)| error),
    }
}

fn head(ip: &IpAddr, message: u16, flags: u16) -> Head<'static> {
    // Version 1, so that the kernel looks at the family.
    let family: &'static [u8; FAMILY] =
        if ip.is_ipv4() { &[libc::AF_INET as u8, 1, 0, 0] } else { &[libc::AF_INET6 as u8, 1, 0, 0] };
    Head { kind: SUBSYSTEM << 8 | message, flags, family }
}
