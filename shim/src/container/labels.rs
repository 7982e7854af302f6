//! AppArmor profile and SELinux label for the workload, written where no container can redirect the write.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::path::Root;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::failure::{Failing, Result, SpawnError};
use super::spec::Process;

const PROC_MAGIC: u64 = 0x9fa0;

pub(super) struct Labels {
    apparmor: String,
    selinux: String,
}

impl Labels {
    pub(super) fn parse(process: &Process) -> Self {
        Self { apparmor: process.apparmor_profile.clone(), selinux: process.selinux_label.clone() }
    }

    /// Asks the kernel to give the labels at the next execve.
    pub(super) fn apply(&self) -> Result<()> {
        if !self.apparmor.is_empty() {
            let step = || format!("set the AppArmor profile {:?}", self.apparmor);
            let command = format!("exec {}", self.apparmor);
            // The first file is AppArmor's own, where other security modules are stacked with it.
            write(&["self/attr/apparmor/exec", "self/attr/exec"], &command, &step)?;
        }
        if !self.selinux.is_empty() {
            let step = || format!("set the SELinux label {:?}", self.selinux);
            write(&["self/attr/exec"], &self.selinux, &step)?;
        }
        Ok(())
    }
}

fn write(files: &[&str], text: &str, step: &dyn Fn() -> String) -> Result<()> {
    let procfs = procfs().failing(step)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(rustix::io::Errno::NOENT);
    for file in files {
        result =
            rustix::fs::openat2(&procfs, *file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
        if result.is_ok() {
            break;
        }
    }
    let file = result.failing(step)?;
    if rustix::fs::fstatfs(&file).failing(step)?.f_type.cast_unsigned() != PROC_MAGIC {
        return Err(SpawnError::refused(step(), "the file to write to is not of procfs"));
    }
    rustix::io::write(&file, text.as_bytes()).failing(step)?;
    Ok(())
}

/// A procfs that nobody else can reach. In a user namespace the kernel may refuse one while parts of the container's are
/// masked; then the container's own root of procfs must do, below which `write` crosses no mount.
fn procfs() -> std::io::Result<OwnedFd> {
    let detached = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    match detached {
        Ok(procfs) => Ok(procfs),
        Err(_) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = Root::open(rustix::fs::open("/", flags, Mode::empty())?);
            root.open_without_links(Path::new("proc"), flags)
        }
    }
}
