//! The writable layer, its file system, and block devices. A container that used none has no samples of devices; on
//! version 1 the kernel counts only where a device is throttled or scheduled by bfq.

use super::ContainerRow as Row;
use crate::drivers::cgroup::stats::DeviceIo;

pub(super) const ROWS: &[Row] = &[
    Row::gauge(
        "container_fs_usage_bytes",
        "Bytes that the container's writable layer occupies, when it was last looked at.",
        |subject, emit| {
            let Some(layer) = &subject.writable_layer else { return };
            let device = subject.file_system.map_or("", |system| &system.device);
            emit.taken_at(layer.at, &[device], Some(layer.usage.bytes));
        },
    )
    .by(&["device"]),
    Row::gauge(
        "container_fs_limit_bytes",
        "Bytes that the file system of the container's writable layer can hold.",
        |subject, emit| {
            let Some(system) = subject.file_system else { return };
            emit.labelled(&[&system.device], Some(system.bytes));
        },
    )
    .by(&["device"]),
    Row::gauge(
        "container_fs_inodes_total",
        "Inodes that the file system of the container's writable layer can hold.",
        |subject, emit| {
            let Some(system) = subject.file_system else { return };
            emit.labelled(&[&system.device], Some(system.inodes));
        },
    )
    .by(&["device"]),
    Row::gauge(
        "container_fs_inodes_free",
        "Inodes that are left on the file system of the container's writable layer.",
        |subject, emit| {
            let Some(system) = subject.file_system else { return };
            emit.labelled(&[&system.device], Some(system.inodes_free));
        },
    )
    .by(&["device"]),
    device("container_fs_reads_bytes_total", "Bytes read from a block device.", |subject, emit| {
        for device in &subject.usage.devices {
            emit.labelled(&[&device.name], Some(device.read_bytes));
        }
    }),
    device("container_fs_reads_total", "Reads from a block device.", |subject, emit| {
        for device in &subject.usage.devices {
            emit.labelled(&[&device.name], Some(device.reads));
        }
    }),
    device("container_fs_writes_bytes_total", "Bytes written to a block device.", |subject, emit| {
        for device in &subject.usage.devices {
            emit.labelled(&[&device.name], Some(device.write_bytes));
        }
    }),
    device("container_fs_writes_total", "Writes to a block device.", |subject, emit| {
        for device in &subject.usage.devices {
            emit.labelled(&[&device.name], Some(device.writes));
        }
    }),
    Row::counter(
        "container_blkio_device_usage_total",
        "Bytes that went to and came from a block device.",
        |subject, emit| {
            for device in &subject.usage.devices {
                let DeviceIo { name, major, minor, read_bytes, write_bytes, .. } = device;
                let (major, minor) = (major.to_string(), minor.to_string());
                emit.labelled(&[name, &major, &minor, "Read"], Some(*read_bytes));
                emit.labelled(&[name, &major, &minor, "Write"], Some(*write_bytes));
            }
        },
    )
    .by(&["device", "major", "minor", "operation"]),
];

type Emitted = fn(&super::Subject<'_>, &mut super::Emit<'_>);

const fn device(name: &'static str, help: &'static str, emit: Emitted) -> Row {
    Row::counter(name, help, emit).by(&["device"])
}
