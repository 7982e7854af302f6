//! The first process of a pod's PID namespace: it reaps and waits. It keeps nothing of the shim's: no descriptor, no
//! capability, and an empty root, since the pod's containers see it as /proc/1.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use berth_sys::{fork, inherit};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

/// Runs as the init until it is killed. Signals without a handler never reach the first process of a namespace, except
/// SIGKILL from outside.
pub fn run(ready: BorrowedFd<'_>) -> i32 {
    let outcome = isolate();
    let code =
        outcome.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(i32::from(outcome.is_err()));
    let told = rustix::io::write(ready, &code.to_ne_bytes());
    if outcome.is_err() || told.is_err() || inherit::close_from(0).is_err() {
        return 1;
    }
    loop {
        // Returns only by a signal, of which none is handled.
        rustix::event::pause();
    }
}

fn isolate() -> io::Result<()> {
    rustix::process::setsid()?;
    berth_sys::process::reset_signals();
    inherit::ignore_children();
    rustix::thread::set_name(c"berth-init")?;
    fork::unshare(UnshareFlags::NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", "4k")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "555")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let root = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // Any directory will do; it is covered in this namespace only, and gone with the old root.
    rustix::mount::move_mount(&root, "", rustix::fs::CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::chdir("/proc")?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    fork::drop_all_capabilities()
}
