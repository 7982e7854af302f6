//! A user namespace that holds a mapping of owners for an ID-mapped mount. The pod's own one comes from the shim.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::OwnedFd;

use berth_sys::clone::{Side, clone3};
use berth_sys::process::exit_now;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::failure::{Failing, Result};
use super::spec::IdMapping;

/// Makes a user namespace with these mappings; it lives as long as the descriptor.
pub(super) fn with_mappings(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let step = || "make a user namespace for an ID-mapped mount".to_owned();
    let (ready, hold) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).failing(step)?;
    match clone3(CloneFlags::CLONE_NEWUSER, None).failing(step)? {
        Side::Child => {
            drop(hold);
            // Ends when the parent closes its end, or ends itself.
            let _ = rustix::io::read(&ready, &mut [0; 1]);
            exit_now(0)
        }
        Side::Parent(pid) => {
            let namespace = map(pid, uids, gids);
            drop(hold);
            nix::sys::wait::waitpid(pid, None).failing(step)?;
            namespace.failing(step)
        }
    }
}

fn map(pid: Pid, uids: &[IdMapping], gids: &[IdMapping]) -> std::io::Result<OwnedFd> {
    std::fs::write(format!("/proc/{pid}/uid_map"), lines(uids))?;
    std::fs::write(format!("/proc/{pid}/gid_map"), lines(gids))?;
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
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

fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, mapping| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", mapping.container, mapping.host, mapping.size);
        text
    })
}
