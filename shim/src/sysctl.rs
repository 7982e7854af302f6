//! The pod's sysctls: which are allowed, and writing them through a procfs of the shim's own, so that nothing mounted
//! over /proc is ever written to.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::failure::Failure;

const STEP: &str = "set sysctl";

/// Which of the pod's namespaces are its own; a sysctl of another would change the host.
#[derive(Clone, Copy, Debug)]
pub struct Owned {
    pub network: bool,
    pub ipc: bool,
}

/// The path below `sys` of a sysctl's name, where a pod may set it. As sysctl(8): the first separator decides
/// whether `.` or `/` separates; the other is then part of a name.
pub fn path(key: &str, owned: Owned) -> Result<String, Failure> {
    let refuse =
        |why: &str| Err(Failure::refused(STEP, rustix::io::Errno::INVAL, format!("sysctl {key:?} {why}")));
    if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte))
    {
        return refuse("has characters other than a-z, 0-9, '.', '_', '-' and '/'");
    }
    let dotted = key.bytes().find(|byte| b"./".contains(byte)) == Some(b'.');
    let path: String = match dotted {
        true => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        false => key.to_owned(),
    };
    if path.split('/').any(|part| part.is_empty() || part.bytes().all(|byte| byte == b'.')) {
        return refuse("is no name of a sysctl");
    }
    let ipc = path == "kernel/sem"
        || ["kernel/shm", "kernel/msg", "fs/mqueue/"].iter().any(|p| path.starts_with(p));
    match (path.starts_with("net/"), ipc) {
        (true, _) if owned.network => Ok(path),
        (true, _) => refuse("needs a network namespace of the pod's own, but the pod uses the host's"),
        (_, true) if owned.ipc => Ok(path),
        (_, true) => refuse("needs an IPC namespace of the pod's own, but the pod uses the host's"),
        _ => refuse("is not of a namespace, so it would change the host"),
    }
}

/// The value as it is written.
pub fn value<'a>(key: &str, value: &'a str) -> Result<&'a [u8], Failure> {
    if value.bytes().any(|byte| byte == 0 || byte == b'\n') {
        return Err(Failure::refused(
            STEP,
            rustix::io::Errno::INVAL,
            format!("the value of sysctl {key:?} has a newline or NUL"),
        ));
    }
    Ok(value.as_bytes())
}

/// Writes sysctls, checked by [`path`] and [`value`], in the calling process's namespaces.
pub fn write_all(sysctls: &[(String, &[u8])]) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = mount_proc().map_err(|error| Failure::io("mount", "a private /proc", error))?;
    for (path, value) in sysctls {
        let fail = |error: rustix::io::Errno| Failure::io(STEP, path.replace('/', "."), error);
        let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file =
            rustix::fs::openat2(&proc, format!("sys/{path}"), flags, Mode::empty(), within).map_err(fail)?;
        rustix::io::write(&file, value).map_err(fail)?;
    }
    Ok(())
}

fn mount_proc() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Owned = Owned { network: true, ipc: true };

    #[test]
    fn both_separators_name_the_same_file() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("kernel.sem", "kernel/sem"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(path(key, BOTH).unwrap(), expected);
        }
    }

    #[test]
    fn keys_that_would_leave_the_namespace_are_refused() {
        for key in [
            "",
            "net",
            "net.",
            "net..x",
            "net/../kernel/core_pattern",
            "/net/ipv4/ip_forward",
            "kernel.core_pattern",
            "kernel.semx",
            "kernel.hostname",
            "fs.mqueue",
            "vm.swappiness",
            "net.a+kernel.x",
            "net.a=b",
            "net.A",
            "../net/x",
            "net/./x",
            "net.ipv4.//.x",
            "net\0x",
        ] {
            assert!(path(key, BOTH).is_err(), "{key:?}");
        }
        let host = Owned { network: false, ipc: false };
        assert!(path("net.ipv4.ip_forward", host).is_err() && path("kernel.shmmax", host).is_err());
        assert!(value("k", "1\n2").is_err() && value("k", "1 2").is_ok());
    }
}
