//! How IDs are mapped: for ID-mapped mounts, and of a running container. The pod's own user namespace comes from the shim.

use std::os::fd::OwnedFd;

use berth_sys::user_namespace::Range;
use nix::unistd::Pid;

use super::failure::{Failing, Result};
use super::spec::IdMapping;

/// Makes a user namespace with these mappings; it lives as long as the descriptor.
pub(super) fn with_mappings(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    berth_sys::user_namespace::with_mappings(&ranges(uids), &ranges(gids))
        .failing(|| "make a user namespace for an ID-mapped mount".to_owned())
}

fn ranges(mappings: &[IdMapping]) -> Vec<Range> {
    let range = |m: &IdMapping| Range { inside: m.container, outside: m.host, count: m.size };
    mappings.iter().map(range).collect()
}

/// How the user namespace of a process maps users; the host's own maps each to itself.
pub(super) fn mappings_of(pid: Pid) -> Result<Vec<IdMapping>> {
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))
        .failing(|| "read the container's user mappings".to_owned())?;
    let mapping = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        Some(IdMapping { container: numbers.next()?, host: numbers.next()?, size: numbers.next()? })
    };
    Ok(map.lines().filter_map(mapping).collect())
}
