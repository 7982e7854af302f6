//! A pod's network interfaces: the pod's, not a container's.

use super::{Emit, PodRow as Row};
use crate::drivers::network::InterfaceUsage;
use crate::pods::PodStats;

pub(super) const ROWS: &[Row] = &[
    row("container_network_receive_bytes_total", "Bytes received.", |stats, emit| {
        each(stats, emit, |interface| interface.received.bytes);
    }),
    row("container_network_receive_packets_total", "Packets received.", |stats, emit| {
        each(stats, emit, |interface| interface.received.packets);
    }),
    row("container_network_receive_errors_total", "Packets received with an error.", |stats, emit| {
        each(stats, emit, |interface| interface.received.errors);
    }),
    row(
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving.",
        |stats, emit| {
            each(stats, emit, |interface| interface.received.dropped);
        },
    ),
    row("container_network_transmit_bytes_total", "Bytes sent.", |stats, emit| {
        each(stats, emit, |interface| interface.transmitted.bytes);
    }),
    row("container_network_transmit_packets_total", "Packets sent.", |stats, emit| {
        each(stats, emit, |interface| interface.transmitted.packets);
    }),
    row("container_network_transmit_errors_total", "Packets that could not be sent.", |stats, emit| {
        each(stats, emit, |interface| interface.transmitted.errors);
    }),
    row(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending.",
        |stats, emit| {
            each(stats, emit, |interface| interface.transmitted.dropped);
        },
    ),
];

const fn row(name: &'static str, help: &'static str, emit: fn(&PodStats, &mut Emit<'_>)) -> Row {
    Row::counter(name, help, emit).by(&["interface"])
}

fn each(stats: &PodStats, emit: &mut Emit<'_>, value: fn(&InterfaceUsage) -> u64) {
    for interface in stats.network.iter().flat_map(|network| &network.interfaces) {
        emit.labelled(&[&interface.name], Some(value(interface)));
    }
}
